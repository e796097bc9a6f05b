//! What an error came from.

/// Every source of an error as text, the nearest first.
pub fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let sources = std::iter::successors(error.source(), |cause| cause.source());
    sources.map(ToString::to_string).collect()
}

/// An error and all that it came from, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    std::iter::once(error.to_string()).chain(causes(error)).collect::<Vec<_>>().join(": ")
}
