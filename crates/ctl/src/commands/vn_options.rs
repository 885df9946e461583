//! The settings of a virtual network, as `vn create` and `vn set` take them.

use clap::{Args, ValueEnum};
use godwit_api::v1;

use super::addresses::LearningArgs;
use crate::{parse, subnet};

/// Settings of a VN. `vn create` takes the default for what is not named, `vn set` leaves it as it is.
#[derive(Args, Clone, Debug)]
pub struct VnOptions {
    /// Requests for addresses that the directory does not have: drop them (query, the default), or flood ten a second
    /// for hosts that never announce themselves.
    #[arg(long, value_enum)]
    silent: Option<Silent>,
    /// A claim for a VM that lives at another NVE, where no move was ordered: ask that NVE whether the VM still runs
    /// there (verify, the default), grant it, or refuse it.
    #[arg(long, value_enum)]
    unplanned: Option<Unplanned>,
    /// VMs that ask for their own IPv4 address by RARP, as a machine without a disk does: answer them; off by default.
    #[arg(long, value_enum)]
    rarp: Option<Rarp>,
    /// What becomes of multicast; flooded by default.
    #[arg(long, value_enum)]
    multicast: Option<Multicast>,
    /// Segments of TCP connections with a VM that is detached, as in a cold move: drop them (the default), or let the
    /// sender's switch answer them by a reset.
    #[arg(long, value_enum)]
    on_cold: Option<OnCold>,
    /// Multicast groups of the underlay, one of IPv4, one of IPv6 or both, that carry what is for everybody where
    /// copies are too many; the underlay must route them. They take the place of those before.
    #[arg(long, value_name = "GROUP[,GROUP]|none", value_parser = subnet::groups_or_none)]
    underlay_group: Option<v1::UnderlayGroups>,
    /// Moves that its VMs take, or all; these take the place of those before.
    #[arg(long, value_name = "MODE[,MODE]", value_delimiter = ',', value_enum)]
    modes: Vec<Modes>,
    /// Routing domain whose VNs reach each other by routing; without one the VN is bridged only. Subnets follow
    /// (`vn subnet add`).
    #[arg(long, value_name = "DOMAIN", value_parser = parse::name)]
    pub(super) domain: Option<String>,
    /// Whose word binds addresses.
    #[command(flatten)]
    learning: LearningArgs,
}

impl VnOptions {
    /// By which clap knows them.
    pub(super) const NAMES: [&str; 11] = [
        "silent",
        "unplanned",
        "rarp",
        "multicast",
        "on_cold",
        "underlay_group",
        "modes",
        "domain",
        "addresses",
        "addresses_v4",
        "addresses_v6",
    ];

    /// Of a new VN; its MTU, its tags and its part in a domain come on top.
    pub(super) fn settings(&self) -> v1::VnSettings {
        let groups = self.underlay_group.clone().unwrap_or_default();
        v1::VnSettings {
            flood_silent: self.silent == Some(Silent::Flood),
            rarp: self.rarp == Some(Rarp::On),
            learning: Some(self.learning.all()),
            unplanned: v1::Unplanned::from(self.unplanned.unwrap_or(Unplanned::Verify)).into(),
            multicast: v1::Multicast::from(self.multicast.unwrap_or(Multicast::Flood)).into(),
            underlay_group_v4: groups.v4,
            underlay_group_v6: groups.v6,
            modes: modes_of(&self.modes),
            on_cold: v1::OnCold::from(self.on_cold.unwrap_or(OnCold::Drop)).into(),
            ..v1::VnSettings::default()
        }
    }

    /// What is to change; the VN's name and its part in a domain come on top.
    pub(super) fn change(&self) -> v1::SetVnRequest {
        v1::SetVnRequest {
            flood_silent: self.silent.map(|s| s == Silent::Flood),
            unplanned: self.unplanned.map_or(v1::Unplanned::Unspecified, v1::Unplanned::from).into(),
            rarp: self.rarp.map(|r| r == Rarp::On),
            learning: self.learning.change(),
            multicast: self.multicast.map_or(v1::Multicast::Unspecified, v1::Multicast::from).into(),
            underlay_groups: self.underlay_group.clone(),
            on_cold: self.on_cold.map_or(v1::OnCold::Unspecified, v1::OnCold::from).into(),
            modes: modes_of(&self.modes),
            ..v1::SetVnRequest::default()
        }
    }
}

/// What becomes of ARP and ND requests for addresses that the directory does not have.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Silent {
    /// They are dropped.
    Query,
    /// They are flooded, ten a second and NVE at most.
    Flood,
}

/// What becomes of a claim for a VM that lives at another NVE, where no move was ordered.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unplanned {
    /// The other NVE is asked; granted if the VM is gone, silent for 3 s, or the NVE away.
    Verify,
    /// It is granted.
    Accept,
    /// It is refused.
    Deny,
}

/// What becomes of segments of connections with a VM that is detached.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnCold {
    /// They are dropped.
    Drop,
    /// They are answered by a reset.
    Reset,
}

impl From<OnCold> for v1::OnCold {
    fn from(o: OnCold) -> v1::OnCold {
        match o {
            OnCold::Drop => v1::OnCold::Drop,
            OnCold::Reset => v1::OnCold::Reset,
        }
    }
}

/// What becomes of multicast in a VN.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Multicast {
    /// It is copied to everybody.
    Flood,
    /// It is copied to those that asked for it by IGMP or MLD; link-local groups to everybody.
    Snoop,
    /// It is dropped, but for link-local groups.
    Off,
}

impl From<Multicast> for v1::Multicast {
    fn from(m: Multicast) -> v1::Multicast {
        match m {
            Multicast::Flood => v1::Multicast::Flood,
            Multicast::Snoop => v1::Multicast::Snoop,
            Multicast::Off => v1::Multicast::Off,
        }
    }
}

/// Moves that a VN's VMs take.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Modes {
    /// In running state.
    Hot,
    /// Shut down, then started where its state was mirrored.
    Warm,
    /// Shut down, sent, then started.
    Cold,
    /// Every one.
    All,
}

/// As the wire has them.
fn modes_of(modes: &[Modes]) -> Vec<i32> {
    let (hot, warm, cold) = (v1::MoveMode::Hot, v1::MoveMode::Warm, v1::MoveMode::Cold);
    let each = modes.iter().flat_map(|m| match m {
        Modes::Hot => vec![hot],
        Modes::Warm => vec![warm],
        Modes::Cold => vec![cold],
        Modes::All => vec![hot, warm, cold],
    });
    each.map(Into::into).collect()
}

/// What becomes of VMs' questions for their own addresses.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rarp {
    /// They are announcements and nothing else.
    Off,
    /// They are answered from the directory too.
    On,
}

impl From<Unplanned> for v1::Unplanned {
    fn from(u: Unplanned) -> v1::Unplanned {
        match u {
            Unplanned::Verify => v1::Unplanned::Verify,
            Unplanned::Accept => v1::Unplanned::Accept,
            Unplanned::Deny => v1::Unplanned::Deny,
        }
    }
}
