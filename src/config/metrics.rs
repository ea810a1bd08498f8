//! Section `[metrics]`: where numbers are served to a monitor.

use std::net::SocketAddr;

use crate::config::reader::Section;
use crate::error::Result;

/// Where a mounted volume serves its metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricsConfig {
    /// The address; without one nothing is served.
    pub listen: Option<SocketAddr>,
    /// It may be another than the loopback address.
    pub remote: bool,
}

/// The address that a text names: `127.0.0.1:9464`, `[::1]:9464`, or only the port.
#[must_use]
pub fn parse_listen(text: &str) -> Option<SocketAddr> {
    let port = text.parse::<u16>().ok();
    text.parse().ok().or_else(|| port.map(|port| SocketAddr::from(([127, 0, 0, 1], port))))
}

pub(super) fn read(table: &Section<'_>) -> Result<MetricsConfig> {
    table.refuse_unknown(&["listen", "remote"])?;
    let remote = table.flag("remote")?.unwrap_or(false);
    let Some(text) = table.text("listen")? else {
        return Ok(MetricsConfig { listen: None, remote });
    };
    let Some(listen) = parse_listen(text) else {
        let problem = format!("Value \"{}\" of key \"listen\" is not valid", text.escape_debug());
        return Err(table.error("listen", problem, "valid is an address as 127.0.0.1:9464"));
    };
    if !listen.ip().is_loopback() && !remote {
        let problem = format!("Address {listen} of key \"listen\" is reached from elsewhere");
        let advice = "choose 127.0.0.1, or set remote = true if everybody may read the numbers";
        return Err(table.error("listen", problem, advice));
    }
    Ok(MetricsConfig { listen: Some(listen), remote })
}
