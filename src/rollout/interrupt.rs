//! Ctrl-C, as a rollout takes it: once, and twice.

use tokio::sync::watch;

/// How much of a stop was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interrupt {
    /// None.
    #[default]
    No,
    /// Finish or undo the nodes that are being changed, then stop.
    Soon,
    /// Stop now; guards restore.
    Now,
}

/// The end that asks.
#[derive(Clone, Debug)]
pub struct Interrupter(watch::Sender<Interrupt>);

/// The end that is asked.
#[derive(Clone, Debug)]
pub struct Interrupted(watch::Receiver<Interrupt>);

/// Both ends.
pub fn interrupt() -> (Interrupter, Interrupted) {
    let (sender, receiver) = watch::channel(Interrupt::No);
    (Interrupter(sender), Interrupted(receiver))
}

impl Interrupter {
    /// Asks for a stop, or for a quicker one.
    pub fn raise(&self) -> Interrupt {
        self.0.send_modify(|level| {
            *level = if *level == Interrupt::No { Interrupt::Soon } else { Interrupt::Now };
        });
        *self.0.borrow()
    }
}

impl Interrupted {
    /// What was asked for so far.
    pub fn level(&self) -> Interrupt {
        *self.0.borrow()
    }

    /// Whether a stop was asked for.
    pub fn is_set(&self) -> bool {
        self.level() > Interrupt::No
    }

    /// Waits until at least that much was asked for.
    pub async fn reached(&self, level: Interrupt) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|now| *now >= level).await.is_err() {
            // Nobody is left who could ask.
            std::future::pending::<()>().await;
        }
    }
}
