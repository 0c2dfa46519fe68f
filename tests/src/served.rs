//! What a running process serves over HTTP, as a probe or a scrape sees it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::process::Process;
use crate::support::{PATIENCE, plain_request};

/// The HTTP side of a process that was started with `-v`.
pub struct Served {
    endpoint: String,
}

impl Served {
    /// Waits until `process` says where it serves `what` (`metrics`, `control`).
    #[track_caller]
    pub fn by(process: &mut Process, what: &str) -> Self {
        let said = format!("serving {what}");
        let line = process.wait_for(PATIENCE, |line| line.contains(&said));
        let address = line.trim().rsplit('=').next().unwrap();
        Self {
            endpoint: format!("http://{address}"),
        }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        self.endpoint.trim_start_matches("http://")
    }

    /// Status and body of the answer.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str) -> (u16, String) {
        let answer = plain_request(&self.endpoint, method, path).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, unchunked(head, body))
    }

    /// Status of the answer to GET.
    #[track_caller]
    pub fn code(&self, path: &str) -> u16 {
        self.request("GET", path).0
    }

    /// `/status` of the one database.
    #[track_caller]
    pub fn database(&self) -> Value {
        let (code, body) = self.request("GET", "/status");
        assert_eq!(code, 200, "{body}");
        let status: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status["v"], 1);
        status["databases"][0].clone()
    }

    /// Why the process is not ready; nothing if it is.
    #[track_caller]
    pub fn unready(&self) -> Vec<String> {
        let (code, body) = self.request("GET", "/readyz");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["ready"], code == 200, "{body}");
        let reasons = answer["reasons"].as_array().unwrap().iter();
        reasons
            .map(|reason| reason["reason"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Every series of `/metrics` by name and labels.
    #[track_caller]
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let (code, page) = self.request("GET", "/metrics");
        assert_eq!(code, 200, "{page}");
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').unwrap();
                (series.to_owned(), value.parse().unwrap())
            })
            .collect()
    }

    /// One series of `/metrics`.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        let metrics = self.metrics();
        let value = metrics.get(series);
        *value.unwrap_or_else(|| panic!("no {series} in {metrics:#?}"))
    }
}

/// The body without the frames of a chunked transfer.
fn unchunked(head: &str, body: &str) -> String {
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let (mut rest, mut whole) = (body, String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        whole.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    whole
}
