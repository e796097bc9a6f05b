//! The main path once more, over a real sshd.

use crate::lab::{Lab, Mode};
use crate::sshd::Sshd;
