//! `windlass init`: a new project, of the stock recipes for what is in install/.

mod ask;
mod command;
mod found;
mod names;
mod stock;
mod write;

pub(super) use command::run;
