//! The long campaign.
