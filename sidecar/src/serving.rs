//! What the sidecar serves: what every walrust process does, and the page for people.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use walrust_core::config::MetricsSettings;
use walrust_core::serve::{self, Board, Serving, StatusReport, unready};
use walrust_core::store::StoreLocation;
use walrust_core::{ErrorKind, Result};

use crate::history::{History, LOOK};
use crate::page::{self, Page};

/// Where whoever reaches the pod finds metrics and probes (R136): both families on one port.
pub(crate) const EVERYWHERE: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 16767);

/// Where the containers of the pod find the listener that takes requests.
pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 16768);

/// What the page shows beside the status.
#[derive(Debug)]
pub(crate) struct Shown {
    /// What is known of the process and its databases.
    pub(crate) board: Arc<Board>,
    /// Where the databases are stored.
    location: RwLock<String>,
    /// How far behind they were.
    history: History,
}

impl Shown {
    /// What `board` shows of databases that are stored at `location`.
    pub(crate) fn new(board: Arc<Board>, location: &StoreLocation, history: History) -> Self {
        Self {
            board,
            location: RwLock::new(location.to_string()),
            history,
        }
    }

    /// They are stored elsewhere from now on.
    pub(crate) fn set_location(&self, location: &StoreLocation) {
        *self
            .location
            .write()
            .unwrap_or_else(PoisonError::into_inner) = location.to_string();
    }
}

/// Serves what `settings` ask for. Errors: those of the listeners; a port that somebody has ends a sidecar (R136).
pub(crate) async fn start(
    serving: &mut Serving,
    shown: &Arc<Shown>,
    settings: MetricsSettings,
) -> Result<()> {
    if let Some(address) = settings.listen {
        let address = match serving.routes(router(shown), address).await {
            // A machine without IPv6.
            Err(error) if address.ip() == EVERYWHERE.ip() && error.kind() != ErrorKind::Busy => {
                let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
                serving.routes(router(shown), address).await
            }
            served => served,
        };
        let address = address.map_err(|error| error.hint("choose another: --metrics-port"))?;
        tracing::info!(%address, "serving metrics");
    }
    if let Some(address) = settings.control {
        let address = serving.control(shown.board.clone(), address).await;
        let address = address.map_err(|error| error.hint("choose another: --control-port"))?;
        tracing::info!(%address, "serving control");
    }
    Ok(())
}

/// Takes down the lags, for ever.
pub(crate) async fn remember(shown: &Shown) {
    loop {
        let view = shown.board.look();
        shown.history.note(&StatusReport::new(&view), view.now);
        tokio::time::sleep(LOOK).await;
    }
}

fn router(shown: &Arc<Shown>) -> Router {
    let for_page = shown.clone();
    serve::read_only(shown.board.clone()).route("/", get(move || show(for_page)))
}

async fn show(shown: Arc<Shown>) -> Response {
    let view = shown.board.look();
    let location = shown
        .location
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let page = Page {
        report: &StatusReport::new(&view),
        unready: &unready(&view),
        location: &location,
        now: view.now,
        history: &shown.history,
    };
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, page::POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, page.to_string()).into_response()
}
