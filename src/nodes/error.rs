//! What went wrong on a node, in a rollout's words.

use crate::agent::ErrorLine;
use crate::model::NodeName;
use crate::push::PushError;
use crate::remote::RemoteError;
use crate::rollout::{Fault, NodeError};

/// What a rollout makes of an error.
pub fn node_error(error: &RemoteError) -> NodeError {
    let fault = if error.exit() == 5 {
        Fault::Locked
    } else if error.is_lost() {
        Fault::Lost
    } else {
        match error.kind() {
            "service" => Fault::Service,
            // What the link says now may not be what it says after a power cut: nobody knows.
            "unsynced" => Fault::Lost,
            _ => Fault::Refused,
        }
    };
    let (kind, message) = (error.kind().to_owned(), error.to_string());
    let (causes, help) = (error.causes(), error.help());
    NodeError { fault, line: ErrorLine { kind, message, causes, help, owner: None } }
}

pub(super) fn not_connected(node: &NodeName) -> NodeError {
    NodeError::new(Fault::Lost, "unreachable", format!("{node} is not connected"))
}
pub(super) fn push_error(error: &PushError) -> NodeError {
    if let PushError::Remote(error) = error {
        return node_error(error);
    }
    let (kind, message) = (error.kind().to_owned(), error.to_string());
    let (causes, help) = (error.causes(), error.help());
    NodeError { fault: Fault::Refused, line: ErrorLine { kind, message, causes, help, owner: None } }
}
