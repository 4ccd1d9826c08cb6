//! What the service's instance types are made of, and what a container gets of them on this machine.
//!
//! Invariant: the table is data (`instances.csv`), and has every type that the service model names.

use std::sync::OnceLock;

use super::settings::InstanceLimits;

const TABLE: &str = include_str!("instances.csv");

/// What a machine has, or a container gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Resources {
    pub(super) cpus: f64,
    /// Bytes.
    pub(super) memory: u64,
    pub(super) gpus: u32,
}

impl Resources {
    /// What each of so many hosts of one training job has of a machine.
    pub(super) fn shared_by(self, hosts: usize) -> Self {
        let hosts = u32::try_from(hosts).unwrap_or(u32::MAX).max(1);
        Self { cpus: self.cpus / f64::from(hosts), memory: self.memory / u64::from(hosts), gpus: self.gpus / hosts }
    }
}

/// The limits of one container.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limits {
    /// None for no limit.
    pub(super) bounds: Option<Resources>,
    pub(super) gpus: u32,
}

/// What a container of an instance type gets of a machine. An error says in what the machine is too small.
pub(super) fn limits(
    instance_type: Option<&str>,
    machine: Resources,
    policy: InstanceLimits,
) -> Result<Limits, String> {
    let Some(wanted) = instance_type.and_then(find) else {
        // A type that is newer than the table, or none: the whole machine.
        let bounds = (policy != InstanceLimits::Ignore).then_some(machine);
        return Ok(Limits { bounds, gpus: 0 });
    };
    let gpus = wanted.gpus.min(machine.gpus);
    match policy {
        InstanceLimits::Ignore => Ok(Limits { bounds: None, gpus }),
        InstanceLimits::Cap => {
            let (cpus, memory) = (wanted.cpus.min(machine.cpus), wanted.memory.min(machine.memory));
            Ok(Limits { bounds: Some(Resources { cpus, memory, gpus }), gpus })
        }
        InstanceLimits::Enforce => {
            let short = [
                (wanted.cpus > machine.cpus, format!("{} CPUs of {}", machine.cpus, wanted.cpus)),
                (wanted.memory > machine.memory, format!("{} MiB of {}", machine.memory >> 20, wanted.memory >> 20)),
                (wanted.gpus > machine.gpus, format!("{} GPUs of {}", machine.gpus, wanted.gpus)),
            ];
            let short: Vec<String> = short.into_iter().filter_map(|(is, what)| is.then_some(what)).collect();
            if short.is_empty() {
                return Ok(Limits { bounds: Some(wanted), gpus });
            }
            let name = instance_type.unwrap_or_default();
            Err(format!("the machine is too small for {name}: it has {}", short.join(", ")))
        }
    }
}

fn find(name: &str) -> Option<Resources> {
    static READ: OnceLock<Vec<(&str, Resources)>> = OnceLock::new();
    let table = READ.get_or_init(|| TABLE.lines().filter_map(row).collect());
    table.iter().find(|(known, _)| *known == name).map(|(_, resources)| *resources)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "GiB of a machine, from our own table")]
fn row(line: &'static str) -> Option<(&'static str, Resources)> {
    let mut cells = line.split(',');
    let (name, cpus, gib, gpus) = (cells.next()?, cells.next()?, cells.next()?, cells.next()?);
    let memory = (gib.parse::<f64>().ok()? * f64::from(1 << 30)) as u64;
    Some((name, Resources { cpus: cpus.parse().ok()?, memory, gpus: gpus.parse().ok()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Resources = Resources { cpus: 4.0, memory: 10 << 30, gpus: 1 };

    #[test]
    fn every_type_of_the_service_model_is_known() {
        let model: serde_json::Value = serde_json::from_str(include_str!("../../../openapi/openapi.json")).unwrap();
        let names = model["components"]["schemas"]["TrainingInstanceType"]["enum"].as_array().unwrap();
        let unknown: Vec<_> = names.iter().filter(|name| find(name.as_str().unwrap()).is_none()).collect();
        assert!(names.len() > 200 && unknown.is_empty(), "{unknown:?}");
        let c4 = find("ml.c4.xlarge").unwrap();
        assert_eq!(c4, Resources { cpus: 4.0, memory: 15 << 29, gpus: 0 });
    }

    #[test]
    fn hosts_of_one_training_job_share_the_machine() {
        let half = MACHINE.shared_by(2);
        assert_eq!(half, Resources { cpus: 2.0, memory: 5 << 30, gpus: 0 });
        let refused = limits(Some("ml.m5.large"), half, InstanceLimits::Enforce).unwrap_err();
        assert!(refused.contains("5120 MiB of 8192"), "{refused}");
    }

    #[test]
    fn a_type_is_cut_to_the_machine_or_refused_or_nothing() {
        let of = |name, policy| limits(Some(name), MACHINE, policy);
        let small = Resources { cpus: 2.0, memory: 8 << 30, gpus: 0 };
        for policy in [InstanceLimits::Cap, InstanceLimits::Enforce] {
            assert_eq!(of("ml.m5.large", policy), Ok(Limits { bounds: Some(small), gpus: 0 }));
        }
        let capped = of("ml.p3.8xlarge", InstanceLimits::Cap).unwrap();
        assert_eq!(capped, Limits { bounds: Some(MACHINE), gpus: 1 });
        let refused = of("ml.p3.8xlarge", InstanceLimits::Enforce).unwrap_err();
        assert!(refused.contains("4 CPUs of 32, 10240 MiB of 249856, 1 GPUs of 4"), "{refused}");
        assert_eq!(of("ml.p3.8xlarge", InstanceLimits::Ignore), Ok(Limits { bounds: None, gpus: 1 }));
        assert_eq!(of("ml.new.large", InstanceLimits::Cap).unwrap().bounds, Some(MACHINE));
    }
}
