//! `[metrics]`: what a running process serves, and where.

use std::net::SocketAddr;
use std::time::Duration;

use super::value::or_off;

/// An address to listen on; none is off.
pub type Listen = Option<SocketAddr>;

/// `[metrics]`, or a part of it: what one source says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MetricsLayer {
    /// Where probes and metrics are served.
    pub listen: Option<Listen>,
    /// Another port than that of `listen`.
    pub port: Option<u16>,
    /// Where requests are taken that change something.
    pub control: Option<Listen>,
    /// `MetricsSettings::ready_lag`; zero is off.
    pub ready_lag: Option<Duration>,
}

/// What a process serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MetricsSettings {
    /// Where probes and metrics are served.
    pub listen: Listen,
    /// Where requests are taken that change something: a loopback address.
    pub control: Listen,
    /// A database whose oldest commit waits for longer is not ready; none: it is ready however long.
    pub ready_lag: Option<Duration>,
}

impl MetricsLayer {
    /// This layer on top of `lower`.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            listen: self.listen.or(lower.listen),
            port: self.port.or(lower.port),
            control: self.control.or(lower.control),
            ready_lag: self.ready_lag.or(lower.ready_lag),
        }
    }

    /// What holds for a program with these defaults for `listen` and `control`.
    pub fn finish(self, listen: Listen, control: Listen) -> MetricsSettings {
        let mut listen = self.listen.unwrap_or(listen);
        if let (Some(address), Some(port)) = (&mut listen, self.port) {
            address.set_port(port);
        }
        MetricsSettings {
            listen,
            control: self.control.unwrap_or(control),
            ready_lag: self.ready_lag.map_or(Some(READY_LAG), or_off),
        }
    }
}

/// Commits are durable within a second or two; a store that hiccups is back within one minute.
const READY_LAG: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_replaces_the_port_alone_and_turns_nothing_on() {
        let default = "127.0.0.1:16767".parse().ok();
        let given = MetricsLayer {
            port: Some(1),
            ..MetricsLayer::default()
        };
        let at = |layer: MetricsLayer| layer.finish(default, None).listen;
        assert_eq!(at(MetricsLayer::default()), default);
        assert_eq!(at(given), "127.0.0.1:1".parse().ok());
        let everywhere = MetricsLayer {
            listen: Some("[::]:2".parse().ok()),
            ..MetricsLayer::default()
        };
        assert_eq!(at(given.over(everywhere)), "[::]:1".parse().ok());
        let off = MetricsLayer {
            listen: Some(None),
            ..MetricsLayer::default()
        };
        assert_eq!(at(given.over(off)), None);
    }
}
