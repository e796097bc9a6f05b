//! `out/`: every bundle built here, and what makes the next build quick.
//!
//! ```text
//! out/
//!   oci-layout  index.json      an OCI image layout; a bundle's ref.name is role:version, the newest last
//!   blobs/sha256/<64 hex>       manifests, configs, layers
//!   cache/artifacts.json        digests of artifacts by path, size, times and inode
//!   cache/layers/<options>/<artifact>.json   the layer that an artifact makes with these options
//!   cache/patches/<old>-<new>   what turns files of one bundle into those of another (`push`)
//!   cache/bundles/<inputs>.json the manifest that these layers and this record make
//! ```
//!
//! # Locks
//!
//! * A build holds `out/` shared, gc holds it alone: what a build found in the cache stays until it is done.
//! * Who replaces `index.json` holds `out/blobs` alone from reading it to replacing it.
//!
//! # Invariants
//!
//! * A blob has its name only when it is complete, on the disk, and of that digest.
//! * The index names only bundles whose blobs were all there when it was written.
//! * The caches can be deleted at any time; nothing is lost but time.

mod artifacts;
mod bundle;
mod error;
mod gc;
mod index;
mod layers;
mod layout;
mod unpack;
mod verify;

pub use artifacts::{ArtifactCache, Stamp};
pub use bundle::{LayerReader, StoredBundle};
pub use error::StoreError;
pub use gc::{Garbage, GcPlan};
pub use index::{Index, Tagged};
pub use layers::{BundleRecord, LayerRecord};
pub use layout::Store;
pub use unpack::Unpacked;
pub use verify::{Problem, VerifyProgress, verify};
