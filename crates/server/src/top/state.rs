//! What is shown, and what keys do to it. No terminal and no network: tests press keys and look.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::model::{Group, Overview, Ticket, Tickets};
use crate::remote::segment;

/// Tickets that are looked up at once.
const PAGE: u64 = 100;

/// How the groups are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Sort {
    #[default]
    Waiting,
    Wait,
    Name,
}

/// What the arrow keys move in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Focus {
    #[default]
    Groups,
    Tickets,
}

/// A line that is typed into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub(crate) asked: Asked,
    pub(crate) text: String,
}

/// What a prompt is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Filter,
    Move { group: String, ticket: String },
    Cancel { group: String, ticket: String },
    Pause { group: String },
}

/// An action for the admin API.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Action {
    pub(crate) path: String,
    pub(crate) body: Value,
    /// What to say when it is done.
    pub(crate) done: String,
}

/// What a key led to.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Effect {
    #[default]
    None,
    /// Other tickets are shown now.
    Look,
    Act(Action),
    Quit,
}

/// All that is shown.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) overview: Overview,
    pub(crate) tickets: Tickets,
    /// The group whose tickets are shown, by name: its row moves.
    pub(crate) group: String,
    pub(crate) ticket: usize,
    pub(crate) focus: Focus,
    pub(crate) sort: Sort,
    pub(crate) filter: String,
    pub(crate) prompt: Option<Prompt>,
    pub(crate) help: bool,
    pub(crate) said: String,
    /// Why the last look failed.
    pub(crate) lost: Option<String>,
    /// Where the pages begin, this one last.
    starts: Vec<u64>,
}

// === impl State ===

impl State {
    pub(crate) fn take_overview(&mut self, overview: Overview) {
        self.overview = overview;
        self.lost = None;
        self.sort();
        let known = self
            .overview
            .groups
            .iter()
            .any(|one| one.name == self.group);
        if !known && let Some(first) = self.overview.groups.first() {
            self.group = first.name.clone();
            self.tickets = Tickets::default();
            self.starts.clear();
        }
    }

    /// `of`: what was asked for. An answer for another group or page comes too late.
    pub(crate) fn take_tickets(&mut self, of: &str, tickets: Tickets) {
        if self.tickets_path().as_deref() != Some(of) {
            return;
        }
        // The selection stays on its ticket.
        let selected = self.selected_ticket().map(|one| one.ticket.clone());
        self.tickets = tickets;
        let shown = &self.tickets.tickets;
        let same = selected.and_then(|one| shown.iter().position(|other| other.ticket == one));
        self.ticket = same
            .unwrap_or(self.ticket)
            .min(shown.len().saturating_sub(1));
    }

    pub(crate) fn selected_group(&self) -> Option<&Group> {
        self.overview
            .groups
            .iter()
            .find(|one| one.name == self.group)
    }

    pub(crate) fn selected_ticket(&self) -> Option<&Ticket> {
        self.tickets.tickets.get(self.ticket)
    }

    /// The path of the tickets that are shown.
    pub(crate) fn tickets_path(&self) -> Option<String> {
        if self.group.is_empty() {
            return None;
        }
        let from = self.starts.last().copied().unwrap_or(0);
        let mut path = format!(
            "/admin/groups/{}/tickets?from={from}&limit={PAGE}",
            segment(&self.group)
        );
        for (name, value) in filters(&self.filter) {
            path += &format!("&{name}={}", segment(value));
        }
        Some(path)
    }

    fn sort(&mut self) {
        let groups = &mut self.overview.groups;
        match self.sort {
            Sort::Name => groups.sort_by(|a, b| a.name.cmp(&b.name)),
            Sort::Waiting => {
                groups.sort_by(|a, b| b.depth.cmp(&a.depth).then_with(|| a.name.cmp(&b.name)))
            }
            Sort::Wait => groups.sort_by(|a, b| {
                let wait = |group: &Group| group.worst_p99().unwrap_or(0.0);
                wait(b)
                    .total_cmp(&wait(a))
                    .then_with(|| a.name.cmp(&b.name))
            }),
        }
    }

    pub(crate) fn key(&mut self, key: KeyEvent) -> Effect {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Effect::Quit,
                _ => Effect::None,
            };
        }
        if let Some(prompt) = self.prompt.take() {
            return self.typed(prompt, key.code);
        }
        if self.help {
            self.help = false;
            return Effect::None;
        }
        self.said.clear();
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Effect::Quit,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Tab | KeyCode::BackTab => {
                self.focus = match self.focus {
                    Focus::Groups => Focus::Tickets,
                    Focus::Tickets => Focus::Groups,
                };
            }
            KeyCode::Up | KeyCode::Char('k') => return self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => return self.step(1),
            KeyCode::PageDown | KeyCode::Char(' ') => {
                if let Some(next) = self.tickets.next {
                    self.starts.push(next);
                    return Effect::Look;
                }
            }
            KeyCode::PageUp if self.starts.pop().is_some() => return Effect::Look,
            KeyCode::Char('s') => {
                self.sort = match self.sort {
                    Sort::Waiting => Sort::Wait,
                    Sort::Wait => Sort::Name,
                    Sort::Name => Sort::Waiting,
                };
                self.sort();
            }
            KeyCode::Char('/' | 'f') => {
                let text = self.filter.clone();
                self.prompt = Some(Prompt {
                    asked: Asked::Filter,
                    text,
                });
            }
            KeyCode::Char('p') => return self.pause(),
            KeyCode::Char('m') => self.ask(|group, ticket| Asked::Move { group, ticket }),
            KeyCode::Char('c') => self.ask(|group, ticket| Asked::Cancel { group, ticket }),
            _ => {}
        }
        Effect::None
    }

    fn step(&mut self, by: isize) -> Effect {
        let moved =
            |at: usize, length: usize| at.saturating_add_signed(by).min(length.saturating_sub(1));
        if self.focus == Focus::Tickets {
            self.ticket = moved(self.ticket, self.tickets.tickets.len());
            return Effect::None;
        }
        let groups = &self.overview.groups;
        let at = groups
            .iter()
            .position(|one| one.name == self.group)
            .unwrap_or(0);
        let Some(group) = groups.get(moved(at, groups.len())) else {
            return Effect::None;
        };
        if group.name == self.group {
            return Effect::None;
        }
        self.group = group.name.clone();
        self.tickets = Tickets::default();
        self.starts.clear();
        self.ticket = 0;
        Effect::Look
    }

    /// Pausing is asked about, for it stops requests. Resuming is not.
    fn pause(&mut self) -> Effect {
        let Some((group, paused)) = self
            .selected_group()
            .map(|one| (one.name.clone(), one.paused))
        else {
            return Effect::None;
        };
        if !paused {
            let text = String::new();
            self.prompt = Some(Prompt {
                asked: Asked::Pause { group },
                text,
            });
            return Effect::None;
        }
        Effect::Act(Action {
            path: format!("/admin/groups/{}/resume", segment(&group)),
            body: json!({}),
            done: format!("{group} goes on."),
        })
    }

    fn ask(&mut self, asked: impl FnOnce(String, String) -> Asked) {
        match self.selected_ticket() {
            Some(ticket) => {
                let asked = asked(self.group.clone(), ticket.ticket.clone());
                self.prompt = Some(Prompt {
                    asked,
                    text: String::new(),
                });
            }
            None => self.said = "No ticket is selected.".into(),
        }
    }

    fn typed(&mut self, mut prompt: Prompt, code: KeyCode) -> Effect {
        match code {
            KeyCode::Esc => return Effect::None,
            KeyCode::Enter => return self.entered(prompt),
            KeyCode::Backspace => drop(prompt.text.pop()),
            KeyCode::Char(char) => prompt.text.push(char),
            _ => {}
        }
        self.prompt = Some(prompt);
        Effect::None
    }

    fn entered(&mut self, Prompt { asked, text }: Prompt) -> Effect {
        let text = text.trim().to_owned();
        let of = |group: &str, ticket: &str, what: &str| {
            format!(
                "/admin/groups/{}/tickets/{}/{what}",
                segment(group),
                segment(ticket)
            )
        };
        match asked {
            Asked::Filter => {
                self.filter = text;
                self.starts.clear();
                self.ticket = 0;
                Effect::Look
            }
            Asked::Move { group, ticket } => match text.parse::<i32>() {
                Ok(priority) => Effect::Act(Action {
                    path: of(&group, &ticket, "move"),
                    body: json!({"priority": priority}),
                    done: format!("Moved to priority {priority}."),
                }),
                Err(_) => {
                    self.said = format!(
                        "{text:?} is no priority: it is a whole number, the lower the sooner."
                    );
                    Effect::None
                }
            },
            Asked::Cancel { .. } if text.is_empty() => {
                self.said = "Not cancelled: its client needs a reason.".into();
                Effect::None
            }
            Asked::Cancel { group, ticket } => Effect::Act(Action {
                path: of(&group, &ticket, "cancel"),
                body: json!({"reason": text}),
                done: "Cancelled: its client gets a 409 with the reason.".into(),
            }),
            Asked::Pause { group }
                if text.eq_ignore_ascii_case("y") || text.eq_ignore_ascii_case("yes") =>
            {
                Effect::Act(Action {
                    path: format!("/admin/groups/{}/pause", segment(&group)),
                    body: json!({}),
                    done: format!("{group} is paused."),
                })
            }
            Asked::Pause { .. } => {
                self.said = "Not paused.".into();
                Effect::None
            }
        }
    }
}

/// `key=batch priority=1000`; a word alone is the name of a key.
fn filters(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split_whitespace()
        .map(|word| match word.split_once('=') {
            Some((name @ ("priority" | "key" | "tenant" | "instance"), value)) => (name, value),
            _ => ("key", word),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let mut state = State::default();
        let overview = json!({"groups": [
            {"name": "a/b", "depth": 1, "classes": [{"class": "0", "waits": {"p99_ms": 9.0}}]},
            {"name": "busy", "depth": 7, "paused": false},
        ]});
        state.take_overview(serde_json::from_value(overview).unwrap());
        let path = state.tickets_path().unwrap();
        let tickets = json!({"total": 7, "next": 100, "tickets": [{"ticket": "10"}, {"ticket": "11"}, {"ticket": "12"}]});
        state.take_tickets(&path, serde_json::from_value(tickets).unwrap());
        state
    }

    fn press(state: &mut State, keys: &str) -> Effect {
        let mut effect = Effect::None;
        for char in keys.chars() {
            let code = match char {
                '\n' => KeyCode::Enter,
                '\t' => KeyCode::Tab,
                '⌫' => KeyCode::Backspace,
                char => KeyCode::Char(char),
            };
            effect = state.key(KeyEvent::new(code, KeyModifiers::NONE));
        }
        effect
    }

    fn action(effect: Effect) -> (String, Value) {
        match effect {
            Effect::Act(action) => (action.path, action.body),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn busiest_group_is_selected_first_and_stays_selected_when_it_is_sorted() {
        let mut state = state();
        assert_eq!(state.group, "busy");
        press(&mut state, "s");
        assert_eq!(
            (state.sort, state.overview.groups[0].name.as_str()),
            (Sort::Wait, "a/b")
        );
        assert_eq!(state.group, "busy");
        assert_eq!(press(&mut state, "k"), Effect::Look);
        assert_eq!(
            state.tickets_path().unwrap(),
            "/admin/groups/a%2Fb/tickets?from=0&limit=100"
        );
    }

    #[test]
    fn selection_stays_on_its_ticket_when_the_head_leaves() {
        let mut state = state();
        press(&mut state, "\tjj");
        assert_eq!(state.selected_ticket().unwrap().ticket, "12");
        let path = state.tickets_path().unwrap();
        let rest = json!({"tickets": [{"ticket": "11"}, {"ticket": "12"}]});
        state.take_tickets(&path, serde_json::from_value(rest).unwrap());
        assert_eq!(state.selected_ticket().unwrap().ticket, "12");
        state.take_tickets("/admin/groups/other", Tickets::default());
        assert_eq!(
            state.tickets.tickets.len(),
            2,
            "an answer for another group"
        );
    }

    #[test]
    fn actions_name_the_ticket_that_was_selected_when_they_were_asked_for() {
        let mut state = state();
        press(&mut state, "\tjm-1");
        // The head leaves while the priority is typed.
        let path = state.tickets_path().unwrap();
        state.take_tickets(
            &path,
            serde_json::from_value(json!({"tickets": [{"ticket": "12"}]})).unwrap(),
        );
        let moved = action(press(&mut state, "0\n"));
        assert_eq!(
            moved,
            (
                "/admin/groups/busy/tickets/11/move".into(),
                json!({"priority": -10})
            )
        );
        let cancelled = action(press(&mut state, "ctoo olx⌫d\n"));
        assert_eq!(
            cancelled,
            (
                "/admin/groups/busy/tickets/12/cancel".into(),
                json!({"reason": "too old"})
            )
        );
    }

    #[test]
    fn hurtful_actions_need_an_answer() {
        let mut state = state();
        assert_eq!(press(&mut state, "pn\n"), Effect::None);
        assert_eq!(press(&mut state, "c\n"), Effect::None);
        assert_eq!(press(&mut state, "mhigh\n"), Effect::None);
        assert!(state.said.contains("no priority"), "{}", state.said);
        let paused = action(press(&mut state, "py\n"));
        assert_eq!(paused.0, "/admin/groups/busy/pause");
        state
            .overview
            .groups
            .iter_mut()
            .for_each(|group| group.paused = true);
        assert_eq!(
            action(press(&mut state, "p")).0,
            "/admin/groups/busy/resume"
        );
    }

    #[test]
    fn filter_becomes_the_query_and_pages_begin_anew() {
        let mut state = state();
        assert_eq!(press(&mut state, " "), Effect::Look);
        assert!(state.tickets_path().unwrap().contains("from=100"));
        assert_eq!(press(&mut state, "/batch priority=1000\n"), Effect::Look);
        let path = state.tickets_path().unwrap();
        assert_eq!(
            path,
            "/admin/groups/busy/tickets?from=0&limit=100&key=batch&priority=1000"
        );
    }

    #[test]
    fn q_quits_but_not_while_something_is_typed() {
        let mut state = state();
        assert_eq!(press(&mut state, "/q"), Effect::None);
        assert_eq!(
            state.key(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE)),
            Effect::None
        );
        assert_eq!(
            press(&mut state, "?q"),
            Effect::None,
            "any key closes the help"
        );
        assert_eq!(press(&mut state, "q"), Effect::Quit);
    }
}
