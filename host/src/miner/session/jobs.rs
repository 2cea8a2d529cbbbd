//! Work for the channels of a connection: as one message for a group, or for each channel its own; and in
//! advance, as a future job that a single SetNewPrevHash makes current.

use super::{
    super::outbox::{
        Close, Outbox, activate_job, first_ntime, send_future_group_job, send_future_job, send_group_job,
        send_job,
    },
    GROUP_CHANNEL_ID, Session, next,
};
use crate::{job::Job, sv2::setup::Agreed};
use std::{iter, sync::Arc};

impl Session {
    /// New work to all channels. Those that have its future job are told its tip, and no more.
    pub(super) fn send_work(
        &mut self,
        job: &Arc<Job>,
        agreed: Agreed,
        out: &mut Outbox,
    ) -> Result<(), Close> {
        let idle = self.channels.values().filter(|channel| channel.is_idle()).count();
        // Those without work do not know the tip, which the others need not be told again.
        let mixed = (1..self.channels.len()).contains(&idle);
        if agreed.standard_jobs_only || mixed {
            for channel in self.channels.values_mut().map(AsMut::as_mut) {
                match channel.future_id(job) {
                    Some(job_id) => activate_job(channel.id, iter::once(channel), job, job_id, out)?,
                    None => send_job(channel, job, next(&mut self.next_job_id), first_ntime(job), out)?,
                }
            }
            return Ok(());
        }
        let mut ids = self.channels.values().map(|channel| channel.future_id(job));
        if let Some(Some(job_id)) = ids.next()
            && ids.all(|other| other == Some(job_id))
        {
            return activate_job(
                GROUP_CHANNEL_ID,
                self.channels.values_mut().map(AsMut::as_mut),
                job,
                job_id,
                out,
            );
        }
        let job_id = next(&mut self.next_job_id);
        send_group_job(GROUP_CHANNEL_ID, self.channels.values_mut().map(AsMut::as_mut), job, job_id, out)
    }

    /// The work for channels that could be given none when they were opened. A future job that is out already
    /// is not told to them: when it becomes current they get it whole, like any that never heard of it.
    pub(super) fn serve_idle(&mut self, out: &mut Outbox) -> Result<(), Close> {
        let Some(job) = self.work.job.clone() else { return Ok(()) };
        for channel in self.channels.values_mut().filter(|channel| channel.is_idle()) {
            send_job(channel, &job, next(&mut self.next_job_id), first_ntime(&job), out)?;
        }
        Ok(())
    }

    /// The future job to all channels, if it is another than they have.
    pub(super) fn send_ahead(&mut self, agreed: Agreed, out: &mut Outbox) -> Result<(), Close> {
        let before = self.ahead.map(|(serial, _)| serial);
        let Some((job, job_id)) = self.ahead_job() else { return Ok(()) };
        if before == Some(job.serial) {
            return Ok(());
        }
        if agreed.standard_jobs_only {
            for channel in self.channels.values_mut().map(AsMut::as_mut) {
                send_future_job(channel, &job, next(&mut self.next_job_id), out)?;
            }
            return Ok(());
        }
        send_future_group_job(
            GROUP_CHANNEL_ID,
            self.channels.values_mut().map(AsMut::as_mut),
            &job,
            job_id,
            out,
        )
    }

    /// What a new channel is given: the work, and the future job under the id that its group has it by, so
    /// that one message makes it current for all. Work that was taken back is given to nobody else.
    pub(super) fn first_work(
        &mut self,
        channel: &mut super::Channel,
        agreed: Agreed,
        out: &mut Outbox,
    ) -> Result<(), Close> {
        let Some(job) = self.work.job.clone().filter(|_| !self.work.withdrawn) else { return Ok(()) };
        send_job(channel, &job, next(&mut self.next_job_id), first_ntime(&job), out)?;
        let Some((job, group_job_id)) = self.ahead_job() else { return Ok(()) };
        let job_id = if agreed.standard_jobs_only { next(&mut self.next_job_id) } else { group_job_id };
        send_future_job(channel, &job, job_id, out)
    }

    /// The future job that is to be out, and its id on the group.
    fn ahead_job(&mut self) -> Option<(Arc<Job>, u32)> {
        let Some(job) = self.work.ahead.clone() else {
            self.ahead = None;
            return None;
        };
        let job_id = match self.ahead {
            Some((serial, job_id)) if serial == job.serial => job_id,
            _ => next(&mut self.next_job_id),
        };
        self.ahead = Some((job.serial, job_id));
        Some((job, job_id))
    }
}
