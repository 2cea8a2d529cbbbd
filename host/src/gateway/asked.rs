//! What the policies were asked about, kept for as long as their answer may be asked for again.
//!
//! A verdict counts for the set that gave it. When another set runs, the templates that still matter (the
//! gate names them) are asked about again, with the very inputs of the first time, so that the answers
//! differ only where the sets do. The same when an answer said nothing about the template because this
//! machine was too slow or too busy, a few times. No clock and no sockets here.

use crate::{
    policy::{Inputs, SetDigest},
    template::{Declared, TemplateDigest},
};
use std::{collections::VecDeque, sync::Arc};

/// Templates that are remembered besides those that the gate names.
const MAX: usize = 8;
/// Answers in a row that say nothing about the template, until the last of them counts.
const MAX_FAILURES: u32 = 3;

/// A question to the policies.
#[derive(Clone)]
pub(super) struct Question {
    /// What its source said, where that is to be recorded.
    pub(super) declared: Option<Arc<Declared>>,
    pub(super) inputs: Inputs,
}

impl Question {
    pub(super) fn digest(&self) -> TemplateDigest {
        self.inputs.template.digest
    }
}

struct Asked {
    question: Question,
    /// The answer is under way.
    outstanding: bool,
    /// The set that answered last.
    judged_by: Option<SetDigest>,
    /// Answers in a row that said nothing about the template.
    failures: u32,
}

/// The templates that the policies were asked about, newest last.
#[derive(Default)]
pub(super) struct AskedTemplates {
    list: VecDeque<Asked>,
    /// The newest that the source gave on a tip; what the gateway made itself, or for later, is none.
    newest: Option<TemplateDigest>,
}

impl AskedTemplates {
    /// Notes a new question, which is being asked now. What the gate still `names` is never forgotten.
    /// `admitted_by`: the set on whose word, about what it was made ahead as, miners have it already.
    pub(super) fn ask(
        &mut self,
        question: &Question,
        names: &[TemplateDigest],
        admitted_by: Option<SetDigest>,
    ) {
        let before = self.list.iter().position(|asked| asked.question.digest() == question.digest());
        let before = before.and_then(|at| self.list.remove(at));
        // Being asked for the first time again and again must not hide that nobody can answer.
        let failures = before.filter(|_| admitted_by.is_some()).map_or(0, |asked| asked.failures);
        if self.list.len() >= MAX
            && let Some(oldest) = self.list.iter().position(|asked| !names.contains(&asked.question.digest()))
        {
            self.list.remove(oldest);
        }
        let question = question.clone();
        self.list.push_back(Asked { question, outstanding: true, judged_by: admitted_by, failures });
    }

    /// An answer came. False when it says nothing about the template and is not to be believed yet: it
    /// will be asked again.
    pub(super) fn answered(&mut self, template: TemplateDigest, by: SetDigest, failed: bool) -> bool {
        let Some(asked) = self.list.iter_mut().find(|asked| asked.question.digest() == template) else {
            return true;
        };
        let first = asked.judged_by.is_none();
        asked.outstanding = false;
        asked.judged_by = Some(by);
        asked.failures = if failed { asked.failures + 1 } else { 0 };
        // What has no verdict yet is refused at once, and may be admitted later (fail closed). What has
        // one keeps it until the machine failed repeatedly.
        !failed || first || asked.failures >= MAX_FAILURES
    }

    /// The task that asked came to nothing: a defect. Nobody knows which template it was.
    pub(super) fn lost(&mut self) {
        for asked in self.list.iter_mut().filter(|asked| asked.outstanding) {
            asked.outstanding = false;
            asked.failures += 1;
        }
    }

    /// The source gave this template, which is to be asked about.
    pub(super) fn source_gave(&mut self, template: TemplateDigest) {
        self.newest = Some(template);
    }

    /// The newest template, if it is this one and has, or will have, an answer that says something.
    pub(super) fn is_newest(&self, template: TemplateDigest) -> bool {
        self.newest == Some(template) && self.knows(template)
    }

    /// The template has, or will have, an answer that says something.
    pub(super) fn knows(&self, template: TemplateDigest) -> bool {
        let asked = self.list.iter().find(|asked| asked.question.digest() == template);
        asked.is_some_and(|asked| asked.outstanding || asked.failures == 0)
    }

    /// Whatever the source gives next is news.
    pub(super) fn forget_newest(&mut self) {
        self.newest = None;
    }

    /// The newest template of the source.
    pub(super) fn newest(&self) -> Option<TemplateDigest> {
        self.newest
    }

    /// What is to be asked again now, of the templates that matter, when `running` is the set that runs.
    /// They count as asked from here on. An answer that is outstanding is waited for, so that two cannot
    /// overtake each other.
    pub(super) fn again(&mut self, matters: &[TemplateDigest], running: SetDigest) -> Vec<Question> {
        let wanted = |asked: &&mut Asked| {
            let outdated = asked.judged_by.is_some_and(|set| set != running);
            let failed = (1..MAX_FAILURES).contains(&asked.failures);
            !asked.outstanding && (outdated || failed) && matters.contains(&asked.question.digest())
        };
        let asked = self.list.iter_mut().filter(wanted);
        asked
            .map(|asked| {
                asked.outstanding = true;
                asked.question.clone()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::template::{
        Context,
        facts::assemble,
        synthetic::{self, ContextTable, TemplateTable},
    };

    const OLD: SetDigest = SetDigest([1; 32]);
    const NEW: SetDigest = SetDigest([2; 32]);

    fn question(height: u32) -> Question {
        let table = TemplateTable { height, ..TemplateTable::default() };
        let (declared, context) = synthetic::build(&table, &ContextTable::default()).unwrap();
        let template = Arc::new(assemble(&declared).unwrap());
        let context: Context = context;
        Question {
            declared: Some(Arc::new(declared)),
            inputs: Inputs { template, context: Arc::new(context) },
        }
    }

    fn digests(questions: &[Question]) -> Vec<TemplateDigest> {
        questions.iter().map(Question::digest).collect()
    }

    #[test]
    fn another_set_is_asked_about_what_matters_once_and_with_the_same_inputs() {
        let (work, other) = (question(1), question(2));
        let mut asked = AskedTemplates::default();
        asked.ask(&work, &[], None);
        asked.ask(&other, &[], None);
        assert!(asked.again(&[work.digest()], NEW).is_empty(), "the first answer is waited for");
        assert!(asked.answered(work.digest(), OLD, false) && asked.answered(other.digest(), OLD, false));
        assert!(asked.again(&[work.digest()], OLD).is_empty(), "the same set says the same");
        let again = asked.again(&[work.digest()], NEW);
        assert_eq!(digests(&again), [work.digest()]);
        assert!(Arc::ptr_eq(&again[0].inputs.context, &work.inputs.context));
        assert!(asked.again(&[work.digest()], NEW).is_empty(), "it is under way");
    }

    #[test]
    fn an_answer_of_an_old_set_to_an_older_template_is_asked_for_again() {
        let (older, newer) = (question(1), question(2));
        let mut asked = AskedTemplates::default();
        asked.ask(&older, &[], None);
        asked.ask(&newer, &[], None);
        // The set is swapped here; then the old one's answer comes, and the gate makes it work.
        asked.answered(older.digest(), OLD, false);
        assert_eq!(digests(&asked.again(&[older.digest()], NEW)), [older.digest()]);
    }

    #[test]
    fn a_machine_that_fails_is_asked_again_a_few_times_before_a_verdict_is_given_up() {
        let work = question(1);
        let matters = [work.digest()];
        let mut asked = AskedTemplates::default();
        asked.source_gave(work.digest());
        asked.ask(&work, &[], None);
        assert!(asked.answered(work.digest(), OLD, true), "what has no verdict is refused at once");
        assert!(!asked.is_newest(work.digest()), "given again by the source, it is news");
        assert_eq!(asked.again(&matters, OLD).len(), 1);
        assert!(asked.answered(work.digest(), OLD, false));
        assert_eq!(asked.again(&matters, NEW).len(), 1);
        for _ in 1..MAX_FAILURES {
            assert!(!asked.answered(work.digest(), NEW, true), "the old verdict holds");
            assert_eq!(asked.again(&matters, NEW).len(), 1);
        }
        assert!(asked.answered(work.digest(), NEW, true), "now it counts");
        assert!(asked.again(&matters, NEW).is_empty());
    }

    #[test]
    fn work_that_miners_have_by_activation_is_not_lost_by_one_failure_of_the_machine() {
        let work = question(1);
        let matters = [work.digest()];
        let mut asked = AskedTemplates::default();
        for _ in 1..MAX_FAILURES {
            // Given by the source once more, it is asked about like the first time.
            asked.ask(&work, &matters, Some(OLD));
            assert!(!asked.answered(work.digest(), OLD, true), "it was admitted ahead");
        }
        assert_eq!(asked.again(&matters, OLD).len(), 1);
        assert!(asked.answered(work.digest(), OLD, true), "now it counts");
    }

    #[test]
    fn a_question_that_was_lost_is_asked_again() {
        let work = question(1);
        let mut asked = AskedTemplates::default();
        asked.source_gave(work.digest());
        asked.ask(&work, &[], None);
        assert!(asked.is_newest(work.digest()));
        asked.lost();
        assert!(!asked.is_newest(work.digest()));
        assert_eq!(asked.again(&[work.digest()], OLD).len(), 1);
    }

    #[test]
    fn what_the_gate_names_outlives_everything_newer() {
        let questions: Vec<Question> = (1..40).map(question).collect();
        let matters = [questions[0].digest()];
        let mut asked = AskedTemplates::default();
        for question in &questions {
            asked.ask(question, &matters, None);
            asked.answered(question.digest(), OLD, false);
        }
        assert!(asked.list.len() <= MAX);
        assert_eq!(digests(&asked.again(&matters, NEW)), matters);
    }
}
