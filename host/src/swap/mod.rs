//! Changes of the configuration while miners work: from a trigger to one change, or to none and all reasons.
//!
//! What is to be stands in the configuration file and nowhere else. Whatever the trigger (an HTTP call,
//! SIGHUP, a changed file), the file is read again with the variables the process was started with. The
//! policy room loads, checks and compares; the other rooms look whether they can take over what changed.
//! Then the policy set is swapped, the mode is the file's (one that was set over HTTP lasts until then), and
//! the rooms take over their keys. Keys that cannot change while the gateway runs wait for the next start and
//! are named. All of that happens on a blocking thread, one change at a time: who asks over HTTP meanwhile is
//! refused, the gateway's own triggers wait.
//!
//! - `files`: how a changed file is noticed; `takers`: how rooms take over their keys; `refused`: why not
//! - `mode`: the way to the gate: its mode is changed, and what it does is shown

mod files;
mod mode;
mod refused;
mod takers;

pub use mode::{GateHandle, GateSeat, GateView, JobView, ModeChange, ModeReport, gate_handle};
pub use refused::Refused;
pub use takers::{Takeover, Taker};

use crate::{
    config::{Changes, Config, PolicyEntry},
    event::{
        Event, Events,
        schema::{self, Trigger},
    },
    gate::Mode,
    policy::{
        PolicySpec, PolicyStore, SetDigest,
        compare::Difference,
        store::{NoPreviousSet, PolicyView, Proposal, Turn},
    },
    reason::Reason,
};
use files::{Eyes, Sight};
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use takers::Takers;
use tokio::{sync::watch, task::spawn_blocking, time::sleep};

/// What an operator can ask of the running policies. Share it behind an `Arc`.
pub struct Swaps {
    store: Arc<PolicyStore>,
    started: Config,
    /// What runs; of keys that wait for a start it has what was read last.
    in_force: watch::Sender<Arc<Config>>,
    takers: Takers,
    gate: GateHandle,
    events: Events,
    /// What the files were at the last attempt, successful or not: the same is not tried again by itself.
    tried: Mutex<Sight>,
}

/// The running policies.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Status {
    /// The running set.
    pub policy_set: SetDigest,
    /// The set before it, which a rollback would bring back.
    pub previous_set: Option<SetDigest>,
    /// Templates that a proposed set would be compared on.
    pub remembered: usize,
    /// The policies of the running set, in order.
    pub policies: Vec<PolicyView>,
}

/// What a swap did, or with `dry_run` would do.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SwapReport {
    /// `policy_set_swapped` or `policy_set_unchanged`.
    pub reason_code: Reason,
    /// Nothing was changed, it was only looked at.
    pub dry_run: bool,
    /// How the two sets judge the last templates.
    pub difference: Difference,
    /// What becomes of the mode.
    pub mode: ModeReport,
    /// Keys, policies and mode aside, that take effect.
    pub reloaded: Vec<String>,
    /// Keys of the configuration file that wait for the next start.
    pub restart_needed: Vec<String>,
    /// Time that loading and comparing took, milliseconds.
    pub duration_ms: u64,
}

/// What a rollback did.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct RollbackReport {
    /// `policy_set_rolled_back`.
    pub reason_code: Reason,
    /// The set that judged before.
    pub from: SetDigest,
    /// The set that judges now.
    pub to: SetDigest,
}

/// What the configuration's list of policies is for the policy room.
pub fn specs(entries: &[PolicyEntry]) -> Vec<PolicySpec> {
    entries.iter().map(PolicySpec::from).collect()
}

impl Swaps {
    /// For a store whose running set was loaded from this configuration.
    pub fn new(store: Arc<PolicyStore>, started: Config, gate: GateHandle, events: Events) -> Self {
        let mut sight = Sight::from([(started.file.clone(), Some(started.file_digest()))]);
        sight.extend(files::modules(&store.running()));
        let in_force = watch::Sender::new(Arc::new(started.clone()));
        let takers = Takers::default();
        Self { store, started, in_force, takers, gate, events, tried: Mutex::new(sight) }
    }

    /// Has somebody take over what changes with each reload from now on.
    pub fn tell(&self, taker: Taker) {
        self.takers.add(taker);
    }

    /// The configuration in force, but for keys that wait for the next start.
    pub fn in_force(&self) -> Arc<Config> {
        self.in_force.borrow().clone()
    }

    /// The running policies.
    pub fn status(&self) -> Status {
        let running = self.store.running();
        Status {
            policy_set: running.digest(),
            previous_set: self.store.previous().map(|set| set.digest()),
            remembered: self.store.remembered(),
            policies: running.policies(),
        }
    }

    /// What the gate is doing.
    pub fn gate(&self) -> GateView {
        self.gate.view()
    }

    /// Changes the mode. The configuration file stays as it is, and counts again at the next reload or
    /// start.
    ///
    /// # Errors
    /// To and from shadow mode, while another change is under way, and when the gateway is ending.
    pub async fn set_mode(&self, trigger: Trigger, mode: Mode) -> Result<ModeReport, Refused> {
        let running = self.gate.view().mode;
        if mode.serves_miners() != running.serves_miners() {
            let reason_code = Reason::ModeRestartNeeded;
            let detail = format!(
                "the mode is {running} and stays so: {} Write mode = \"{mode}\" into {} and start again",
                reason_code.meaning(),
                self.started.file.display()
            );
            return Err(Refused { reason_code, detail, faults: Vec::new() });
        }
        let _turn = self.store.turn().map_err(|busy| self.refuse(trigger, false, busy.into()))?;
        Ok(self.gate.change(mode, trigger).await?)
    }

    /// Reads the configuration file again and takes it over: policies, mode and keys; with `dry_run` only says
    /// what would be different. Goes on to its end even if nobody waits for it.
    ///
    /// # Errors
    /// Every fault of the file and of the policies, or that another change is under way. The running set
    /// is then untouched.
    pub async fn reload(self: &Arc<Self>, trigger: Trigger, dry_run: bool) -> Result<SwapReport, Refused> {
        let turn = match trigger {
            Trigger::Http => self.store.turn(),
            Trigger::Signal | Trigger::File => self.store.wait_for_turn().await,
        };
        let turn = turn.map_err(|busy| self.refuse(trigger, dry_run, busy.into()))?;
        let this = self.clone();
        let done = spawn_blocking(move || {
            this.reload_now(turn, trigger, dry_run).map_err(|refused| this.refuse(trigger, dry_run, refused))
        });
        done.await.unwrap_or_else(|_| {
            let detail = "the change of the policy set was cut off".into();
            let refused = Refused { reason_code: Reason::InternalError, detail, faults: Vec::new() };
            Err(self.refuse(trigger, dry_run, refused))
        })
    }

    /// Brings the previous set back; the running one becomes the previous one. The configuration file
    /// stays as it is, and counts again at the next reload or start.
    ///
    /// # Errors
    /// When there is none, or another change is under way.
    pub fn rollback(&self, trigger: Trigger) -> Result<RollbackReport, Refused> {
        let refuse = |refused| self.refuse(trigger, false, refused);
        let turn = self.store.turn().map_err(|busy| refuse(busy.into()))?;
        let from = self.store.running().digest();
        let previous = self.store.previous().ok_or(NoPreviousSet).map_err(|none| refuse(none.into()))?;
        let report = RollbackReport { reason_code: Reason::PolicySetRolledBack, from, to: previous.digest() };
        // Said first, so that no verdict of the set stands before it.
        self.events.emit(Event::PolicySetRolledBack(schema::PolicySetRolledBack {
            reason: report.reason_code,
            trigger,
            from: report.from.to_string(),
            to: report.to.to_string(),
            policies: previous.specs().iter().map(|spec| spec.name.clone()).collect(),
        }));
        self.store.rollback(&turn).map_err(|none| refuse(none.into()))?;
        Ok(report)
    }

    /// Looks at the files again and again, and reloads when one is another and has been so for two looks:
    /// a file that is being written is left alone until it is whole. Runs until shutdown.
    pub async fn watch_files(self: Arc<Self>, mut down: watch::Receiver<bool>) {
        let mut in_force = self.in_force.subscribe();
        let watching = async {
            let (mut eyes, mut last) = (Eyes::default(), Sight::new());
            loop {
                // Never, until a reload brings an interval.
                let interval = match in_force.wait_for(|config| !config.swap.watch.is_zero()).await {
                    Ok(config) => config.swap.watch,
                    Err(_) => return,
                };
                tokio::select! {
                    () = sleep(interval) => {}
                    _ = in_force.changed() => continue,
                }
                let tried = self.tried();
                let paths: Vec<_> = tried.keys().cloned().collect();
                let looked = spawn_blocking(move || {
                    let sight = eyes.look(&paths);
                    (eyes, sight)
                });
                let Ok((eyes_again, seen)) = looked.await else { return };
                eyes = eyes_again;
                if files::is_news(&seen, &last, &tried) {
                    // What came of it is an event; there is nobody here to tell.
                    let _ = self.reload(Trigger::File, false).await;
                }
                last = seen;
            }
        };
        tokio::select! {
            _ = down.wait_for(|down| *down) => {}
            () = watching => {}
        }
    }

    fn tried(&self) -> Sight {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reload_now(&self, turn: Turn, trigger: Trigger, dry_run: bool) -> Result<SwapReport, Refused> {
        // Looked at before they are read: a change in between is then seen as one.
        let mut sight = Eyes::default().look(std::slice::from_ref(&self.started.file));
        let config = self.started.reload();
        let running = self.store.running();
        let modules = running.specs().iter().map(|spec| spec.module.clone());
        let proposed = config.iter().flat_map(|config| config.policies.iter().map(|p| p.module.clone()));
        sight.extend(Eyes::default().look(&modules.chain(proposed).collect::<Vec<_>>()));
        if !dry_run {
            *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = sight;
        }
        let mut config = config.map_err(Refused::from)?;
        let in_force = self.in_force();
        // In shadow mode nobody is served; what miners were promised stays as it is until the next start.
        config.serving = config.serving.or_else(|| in_force.serving.clone());
        let Changes { taken: reloaded, waiting: restart_needed } = self.started.changes(&in_force, &config);
        let looked = self.takers.look(&in_force, &config);
        let prepared = self.store.prepare(turn, specs(&config.policies));
        let (takeovers, proposal) = match (looked, prepared) {
            (Ok(takeovers), Ok(proposal)) => (takeovers, proposal),
            (looked, prepared) => {
                let (of_rooms, of_policies) = (looked.err(), prepared.err());
                return Err(Refused::new(
                    &config,
                    of_rooms.unwrap_or_default(),
                    of_policies.unwrap_or_default(),
                ));
            }
        };
        let reason_code =
            if proposal.is_running() { Reason::PolicySetUnchanged } else { Reason::PolicySetSwapped };
        let duration_ms = u64::try_from(proposal.took().as_millis()).unwrap_or(u64::MAX);
        let from = self.gate.view().mode;
        let to = if config.mode.serves_miners() == from.serves_miners() { config.mode } else { from };
        let mode = ModeReport::new(from, to);
        let difference = if dry_run {
            proposal.difference().clone()
        } else {
            if to != from {
                // Before the rest, which cannot fail; the swap gives the turn back.
                self.gate.change_blocking(to, trigger)?;
            }
            self.take_over(trigger, config, takeovers, &reloaded, &restart_needed);
            // Said first, so that no verdict of the set stands before it.
            self.events.emit(swapped(reason_code, trigger, duration_ms, &proposal));
            proposal.commit()
        };
        Ok(SwapReport { reason_code, dry_run, difference, mode, reloaded, restart_needed, duration_ms })
    }

    fn take_over(
        &self,
        trigger: Trigger,
        config: Config,
        takeovers: Vec<Takeover>,
        reloaded: &[String],
        restart_needed: &[String],
    ) {
        takeovers.into_iter().for_each(|takeover| takeover());
        self.in_force.send_replace(Arc::new(config));
        if !reloaded.is_empty() {
            let (reason, keys) = (Reason::ConfigReloaded, reloaded.to_vec());
            self.events.emit(Event::ConfigReloaded { reason, trigger, keys });
        }
        if !restart_needed.is_empty() {
            let (reason, keys) = (Reason::ConfigRestartNeeded, restart_needed.to_vec());
            self.events.emit(Event::ConfigRestartNeeded { reason, keys });
        }
    }

    /// Says a refusal, unless nothing was to be changed anyway.
    fn refuse(&self, trigger: Trigger, dry_run: bool, refused: Refused) -> Refused {
        if !dry_run {
            self.events.emit(Event::PolicySwapRefused(schema::PolicySwapRefused {
                reason: refused.reason_code,
                trigger,
                running: self.store.running().digest().to_string(),
                detail: refused.detail.clone(),
                faults: refused.faults.clone(),
            }));
        }
        refused
    }
}

fn swapped(reason: Reason, trigger: Trigger, duration_ms: u64, proposal: &Proposal<'_>) -> Event {
    let difference = proposal.difference();
    if proposal.is_running() {
        let policy_set = difference.running.to_string();
        return Event::PolicySetUnchanged { reason, trigger, policy_set };
    }
    Event::PolicySetSwapped(schema::PolicySetSwapped {
        reason,
        trigger,
        from: difference.running.to_string(),
        to: difference.proposed.to_string(),
        policies: proposal.proposed().specs().iter().map(|spec| spec.name.clone()).collect(),
        difference: difference.counts,
        duration_ms,
    })
}
