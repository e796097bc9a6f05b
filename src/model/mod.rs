//! Digests, names, paths and sizes: values that are checked once, where they enter. No I/O.

mod buffers;
mod cancel;
mod causes;
mod digest;
mod near;
mod path;
mod product;
mod role;
mod size;
mod span;
mod supervisor;
mod timestamp;

pub use buffers::Buffers;
pub use cancel::{Cancel, Cancelled};
pub use causes::{causes, with_causes};
pub use digest::{Digest, DigestError, Hasher};
pub use near::nearest;
pub use path::{BundlePath, PathError};
pub use product::ProductVersion;
pub use role::{NameError, NodeName, Reference, ReferenceError, Role, Version};
pub use size::{ByteSize, SizeError};
pub use span::{DurationError, Span, millis};
pub use supervisor::{Supervision, SupervisorKind};
pub use timestamp::Timestamp;
