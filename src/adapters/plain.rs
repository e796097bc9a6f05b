//! A service of which nothing is known beyond its process and its recipe's `[service.ready]`.

use super::adapter::{Adapter, AdapterError};
use super::view::View;
use crate::agent::Setting;
use crate::rollout::Held;

/// Whatever is asked, it holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Adapter for Plain {
    async fn rank(&self, _: &View<'_>) -> Result<u32, AdapterError> {
        Ok(0)
    }

    async fn may_leave(&self, _: &View<'_>) -> Result<Held, AdapterError> {
        Ok(Held::Yes)
    }

    async fn settings(&self, _: &View<'_>) -> Result<Vec<Setting>, AdapterError> {
        Ok(Vec::new())
    }

    async fn drain(&self, _: &View<'_>, _: &[Setting]) -> Result<Held, AdapterError> {
        Ok(Held::Yes)
    }

    async fn undrain(&self, _: &View<'_>, _: &[Setting]) -> Result<Held, AdapterError> {
        Ok(Held::Yes)
    }

    async fn ready(&self, _: &View<'_>) -> Result<Held, AdapterError> {
        Ok(Held::Yes)
    }

    async fn settled(&self, _: &View<'_>) -> Result<Held, AdapterError> {
        Ok(Held::Yes)
    }
}
