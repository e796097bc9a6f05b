//! What runs on a node: `windlass node ...`. There is no daemon; each operation is a process.
//!
//! ```text
//! push      wire -> receive -> objects, bundles
//! preview   what stage would make
//! preflight what the node is like for a service
//! stage     bundles, objects -> render, place -> a release
//! activate  journal (intent) -> guard -> swap -> journal (fact);  confirm ends the guard
//! rollback  journal (intent) -> stop -> swap -> start -> journal (fact)
//! ```
//!
//! # Invariants
//!
//! * Whatever is killed, whenever: `current` resolves to a complete release, and the next run knows what was
//!   meant and finishes it or takes it back.
//! * Nothing here knows of SSH, of other nodes or of what a rollout is.

mod accounts;
mod activate;
mod boot;
mod bundles;
mod call;
mod choose;
mod desk;
mod draft;
mod drift;
mod error;
mod facts;
mod gc;
mod guard;
mod heal;
mod imagine;
mod journal;
mod key;
mod layout;
mod lock;
mod memory;
mod names;
mod no_return;
mod objects;
mod ops;
mod patch;
mod place;
mod preflight;
mod preview;
mod receive;
mod record;
mod recover;
mod release;
mod render;
mod rollback;
mod service;
mod spare;
mod stage;
mod stage_error;
mod state;
mod status;
pub mod supervise;
mod trial;
mod trust;
mod unpack;
mod unsynced;
pub mod wire;
mod words;
mod workers;

pub use activate::{ActivateError, Activated, Activation};
pub use bundles::{Bundle, BundleError, Wanted};
pub use call::{
    Answer, Call, Confirmed, Drift, Have, History, Journalled, Line, Noted, Probed, Request, ServiceStarted,
    WantedObject,
};
pub use desk::Desk;
pub use drift::{Difference, What};
pub use error::{AgentError, ErrorLine};
pub use facts::{DirFact, LimitFact, LimitFrom, PortFact, Preflight, PreflightAsk, RolePreflight};
pub use gc::{Collected, CollectedRelease, GcRequest};
pub use guard::run as guard;
pub use heal::{HealContext, Healed, NotHealed};
pub use imagine::{Imagined, imagine};
pub use journal::JournalError;
pub use layout::{LayoutError, RoleDir, Root};
pub use lock::{Authority, Claim, HeldLock, LockError, Owner, acquire as acquire_lock, owner as lock_owner};
pub use names::{ReleaseName, ReleaseNameError};
pub use objects::{ObjectError, ObjectId, Objects};
pub use ops::{Agent, ROOT_MODE, perform};
pub use preview::{Change, Preview, PreviewFile, PreviewRequest};
pub use receive::{read_line, receive};
pub use record::{Deadline, Entry, Errand, Record, Setting};
pub use release::{ReleaseRecord, Rendered};
pub use render::{ClusterContext, Context, NodeContext};
pub use rollback::{Rollback, RolledBack};
pub use stage::{StageRequest, Staged};
pub use stage_error::StageError;
pub use state::{Illegal, Phase, State};
pub use status::{BadStatus, NodeStatus, RoleStatus, StagedStatus, UnconfirmedStatus};
pub use trial::TestFailed;
