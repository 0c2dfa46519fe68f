//! Plans over random histories, and compactions of real files.

mod histories;
mod runs;
mod year;

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// When merged files are due, as a watcher has it: at the end of each minute, hour and day in which more than
/// one file of the level below came.
#[derive(Clone)]
struct Periods([Period; 3]);

#[derive(Clone, Copy, Default)]
struct Period {
    start: u64,
    files: u32,
    last: Option<i64>,
}

/// A merged file that is due.
struct Merged {
    level: u8,
    min: u64,
    max: u64,
    files: u32,
    last: i64,
}

impl Periods {
    fn new(head: u64) -> Self {
        let period = Period {
            start: head,
            ..Period::default()
        };
        Self([period; 3])
    }

    fn record(&mut self, clock: i64) {
        for period in &mut self.0 {
            period.last = Some(clock);
        }
        self.0[0].files += 1;
    }

    fn due(&mut self, clock: i64, head: u64) -> Vec<Merged> {
        let mut due = Vec::new();
        for (at, length) in [MINUTE, HOUR, DAY].into_iter().enumerate() {
            let period = self.0[at];
            let number = |millis: i64| millis.div_euclid(length);
            let Some(last) = period.last.filter(|last| number(*last) != number(clock)) else {
                continue;
            };
            self.0[at] = Period {
                start: head,
                ..Period::default()
            };
            if let Some(above) = self.0.get_mut(at + 1) {
                above.files += 1;
            }
            if period.files >= 2 {
                due.push(Merged {
                    level: at as u8 + 1,
                    min: period.start + 1,
                    max: head,
                    files: period.files,
                    last,
                });
            }
        }
        due
    }
}
