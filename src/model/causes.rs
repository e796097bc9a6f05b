//! What an error came from.

/// Every source of an error as text, the nearest first.
pub fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let sources = std::iter::successors(error.source(), |cause| cause.source());
    sources.map(ToString::to_string).collect()
}
