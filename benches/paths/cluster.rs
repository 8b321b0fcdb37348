//! The choice of a host.

use super::{BenchError, HotPath, Run};
use pgyard::cluster::{
    Balancer, Era, Fleet, Host, HostSet, HostView, PickRequest, Role, Sample, Standing, WalReceiver, Want, pick,
};
use pgyard::config::{Balance, ReadsOnPrimary};
use pgyard::types::{Floor, Lsn, SystemId, Timeline};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const PATHS: &[HotPath] = &[
    HotPath::new("pick_primary", || pick_path(Balance::RoundRobin, Want::Primary, None)),
    HotPath::new("pick_read", || pick_path(Balance::RoundRobin, Want::Read, None)),
    HotPath::new("pick_read_with_floor", || pick_path(Balance::RoundRobin, Want::Read, Some(FLOOR))),
    HotPath::new("pick_read_peak_ewma", || pick_path(Balance::PeakEwma, Want::Read, None)),
];

const SYSTEM: SystemId = SystemId(7);
const FLOOR: Floor = Floor { system: SYSTEM, timeline: Timeline(1), lsn: Lsn(900) };

/// A host of this number, at an address where nobody is.
pub fn host(number: u32) -> Result<Arc<Host>, BenchError> {
    let settings = pgyard::config::from_url(&format!("postgres://bench@127.0.0.1:{}/bench?sslmode=disable", 7000 + number))?;
    Ok(Arc::new(Host::new(number, settings)))
}

/// A primary and two replicas, all in rotation.
fn fleet() -> Result<Fleet, BenchError> {
    let mut hosts = Vec::new();
    for number in 0..3 {
        let replica = number > 0;
        let sample = Sample {
            asked: Instant::now(),
            in_recovery: replica,
            system: SYSTEM,
            timeline: Timeline(1),
            receiver: if replica { WalReceiver::Streaming(Timeline(1)) } else { WalReceiver::None },
            lsn: Lsn(1000),
            started_us: 1,
            defaults: pgyard::cluster::ServerDefaults::default(),
        };
        hosts.push(HostView {
            host: host(number)?,
            role: if replica { Role::Replica } else { Role::Primary },
            standing: Standing::Eligible,
            sample: Some(sample),
            lag_bytes: Some(0),
            lag: Some(Duration::ZERO),
            probe_latency: None,
        });
    }
    let era = Some(Era { system: SYSTEM, timeline: Timeline(1), first_lsn: Lsn(1) });
    Ok(Fleet { generation: 1, hosts: hosts.into(), primary: Some(0), eligible: [1, 2].into(), era })
}

fn pick_path(balance: Balance, want: Want, floor: Option<Floor>) -> Run {
    let (fleet, balancer) = (fleet()?, Balancer::new(balance, 1));
    Ok(Box::new(move || {
        let request = PickRequest {
            max_lag: None,
            want,
            floor: floor.as_ref(),
            excluded: HostSet::NONE,
            reads_on_primary: ReadsOnPrimary::Fallback,
            client_hash: 1,
            crowded: None,
        };
        assert!(black_box(pick(black_box(&fleet), &balancer, &request)).is_ok(), "there is always a host");
    }))
}
