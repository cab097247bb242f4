//! What a program takes while nothing happens: its memory, and its share of a processor.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::interruption;
use crate::numbers::Samples;
use crate::subject::Running;

/// Time between two looks at the threads of a process.
const LOOK: Duration = Duration::from_secs(1);

/// Samples by name and by what the program held meanwhile: `rss_mib`, `idle`.
#[derive(Clone, Debug, Default)]
pub struct AtRest(BTreeMap<&'static str, BTreeMap<String, Samples>>);

impl AtRest {
    /// Takes one sample.
    pub fn push(&mut self, name: &'static str, holding: &str, value: f64) {
        self.0.entry(name).or_default().entry(holding.to_owned()).or_default().push(value);
    }

    /// Takes the memory that it has now, in MiB: all of it, the part that is no file's, and the most it ever had.
    pub fn memory(&mut self, running: &Running, holding: &str) -> anyhow::Result<()> {
        let memory = running.memory()?;
        for (name, mib) in ["rss_mib", "anonymous_mib", "peak_rss_mib"].into_iter().zip(memory) {
            self.push(name, holding, mib);
        }
        Ok(())
    }

    /// Takes its processor time, as percent of one core, over `time`. `meanwhile` is called once a second.
    pub fn processor(
        &mut self,
        running: &Running,
        holding: &str,
        time: Duration,
        mut meanwhile: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut processor = running.processor()?;
        let started = Instant::now();
        while started.elapsed() < time {
            let turn = Instant::now();
            meanwhile()?;
            let left = time.saturating_sub(started.elapsed());
            interruption::sleep(LOOK.saturating_sub(turn.elapsed()).min(left))?;
            processor.look()?;
        }
        let share = processor.total().as_secs_f64() / started.elapsed().as_secs_f64();
        self.push("cpu_percent", holding, share * 100.0);
        Ok(())
    }

    /// The median of each.
    pub fn summary(&self) -> Map<String, Value> {
        self.map(Samples::summary)
    }

    /// Every sample of each.
    pub fn raw(&self) -> Map<String, Value> {
        self.map(Samples::raw)
    }

    fn map(&self, of: impl Fn(&Samples) -> Value) -> Map<String, Value> {
        let each = |held: &BTreeMap<String, Samples>| -> Value {
            held.iter().map(|(holding, samples)| (holding.clone(), of(samples))).collect::<Map<_, _>>().into()
        };
        self.0.iter().map(|(name, held)| ((*name).to_owned(), each(held))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn medians_and_samples_stand_by_name_and_by_what_was_held() {
        let mut rest = AtRest::default();
        for mib in [14.0, 16.0, 15.0] {
            rest.push("rss_mib", "idle", mib);
        }
        rest.push("rss_mib", "10000", 20.0);
        assert_eq!(Value::from(rest.summary()), json!({"rss_mib": {"idle": 15.0, "10000": 20.0}}));
        assert_eq!(
            Value::from(rest.raw()),
            json!({"rss_mib": {"idle": [14.0, 16.0, 15.0], "10000": [20.0]}})
        );
    }
}
