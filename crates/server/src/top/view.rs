//! How it is drawn.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Table, TableState, Wrap},
};

use super::{
    model::{Deployment, Limit},
    state::{Asked, Focus, Sort, State},
    words::{maybe_time, plain, short, state as state_words, time, why},
};

/// The classes of priority, as the metrics have them.
const CLASSES: [&str; 6] = ["<0", "0", "1-9", "10-99", "100-999", "1000+"];

const HELP: &str = "\
up, down (k, j)   another group or ticket
Tab               between groups and tickets
PgDn, PgUp        pages of the queue (space: the next one)
s                 sort groups: by waiting, by p99, by name
/                 filter tickets: key=NAME priority=5 tenant=NAME instance=ID
p                 pause the group, or resume it
m                 move the ticket to another priority
c                 cancel the ticket, with a reason for its client
q, Esc            quit

Limits: a bar is full when nothing more fits. `was` is what the
configuration says, where another limit is in force.
Any key closes this.";

/// Colours, or none of them (`NO_COLOR`): then bold and reversed text have to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) colour: bool,
}

// === impl Look ===

impl Look {
    fn colour(self, colour: Color) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn odd(self) -> Style {
        self.colour(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    fn soft(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }
}

pub(crate) fn draw(frame: &mut Frame<'_>, state: &State, url: &str, look: Look) {
    let limits = state.selected_group().map_or(0, |group| {
        group
            .deployments
            .iter()
            .map(|one| one.limits.len().max(1))
            .sum()
    });
    let groups = u16::try_from(state.overview.groups.len())
        .unwrap_or(u16::MAX)
        .clamp(1, 8);
    let limits = u16::try_from(limits).unwrap_or(u16::MAX).min(6);
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(groups + 1),
        Constraint::Length(2),
        Constraint::Length(limits),
        Constraint::Min(3),
        Constraint::Length(1),
    ]);
    let [top, groups, why, limits, tickets, bottom] = areas.areas(frame.area());
    head(frame, top, state, url, look);
    group_table(frame, groups, state, look);
    reason(frame, why, state, look);
    limit_bars(frame, limits, state, look);
    ticket_table(frame, tickets, state, look);
    footer(frame, bottom, state, look);
    if state.help {
        help(frame);
    }
}

fn head(frame: &mut Frame<'_>, area: Rect, state: &State, url: &str, look: Look) {
    let overview = &state.overview;
    let ready = overview
        .instances
        .iter()
        .filter(|one| one.ready && one.answered && !one.draining);
    let (waiting, open) = overview
        .groups
        .iter()
        .fold((0, 0), |(waiting, open), group| {
            (waiting + group.depth, open + group.open)
        });
    let figures = format!(
        "{} of {} instances ready, {waiting} waiting, {open} open",
        ready.count(),
        overview.instances.len()
    );
    let mut line = Line::from(vec![
        Span::styled("vorrang top", Style::new().add_modifier(Modifier::BOLD)),
        Span::styled(format!("  {url}  "), look.soft()),
        Span::raw(figures),
    ]);
    if let Some(lost) = &state.lost {
        line = Line::from(Span::styled(format!("OLD: {}", plain(lost)), look.bad()));
    }
    frame.render_widget(Paragraph::new(line), area);
}

fn marked(text: &str, focused: bool) -> Cell<'static> {
    let style = Style::new().add_modifier(Modifier::UNDERLINED);
    let style = if focused {
        style.add_modifier(Modifier::BOLD)
    } else {
        style
    };
    Cell::from(text.to_owned()).style(style)
}

fn group_table(frame: &mut Frame<'_>, area: Rect, state: &State, look: Look) {
    let mark = |name: &str, sort: Sort| {
        if state.sort == sort {
            format!("{name}v")
        } else {
            name.to_owned()
        }
    };
    let names = [
        mark("GROUP", Sort::Name),
        mark("WAIT", Sort::Waiting),
        "OPEN".into(),
    ];
    let rest = [mark("P99", Sort::Wait), "STATE".into()];
    let names = names
        .into_iter()
        .chain(CLASSES.map(str::to_owned))
        .chain(rest);
    let header = Row::new(names.map(|name| marked(&name, state.focus == Focus::Groups)));
    let rows = state.overview.groups.iter().map(|group| {
        let waiting = |name: &str| {
            let class = group.classes.iter().find(|class| class.class == name);
            class.map_or(0, |class| class.waiting)
        };
        let mut cells = vec![
            Cell::from(plain(&group.name)),
            Cell::from(group.depth.to_string()),
            Cell::from(group.open.to_string()),
        ];
        cells.extend(CLASSES.map(|name| match waiting(name) {
            0 => Cell::from("-").style(look.soft()),
            count => Cell::from(count.to_string()),
        }));
        cells.push(Cell::from(maybe_time(group.worst_p99())));
        let style = if group.paused || group.recovering {
            look.bad()
        } else {
            look.odd()
        };
        cells.push(Cell::from(state_words(group)).style(style));
        Row::new(cells)
    });
    let mut widths = vec![
        Constraint::Fill(3),
        Constraint::Length(6),
        Constraint::Length(5),
    ];
    widths.extend(CLASSES.map(|_| Constraint::Length(6)));
    widths.extend([Constraint::Length(7), Constraint::Fill(4)]);
    let selected = state
        .overview
        .groups
        .iter()
        .position(|one| one.name == state.group);
    list(
        frame,
        area,
        Table::new(rows, widths).header(header),
        selected,
        state.focus == Focus::Groups,
    );
}

fn list(
    frame: &mut Frame<'_>,
    area: Rect,
    table: Table<'_>,
    selected: Option<usize>,
    focused: bool,
) {
    let style = Style::new().add_modifier(if focused {
        Modifier::REVERSED
    } else {
        Modifier::BOLD
    });
    let table = table.row_highlight_style(style).highlight_symbol("> ");
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(selected));
}

fn reason(frame: &mut Frame<'_>, area: Rect, state: &State, look: Look) {
    let Some(group) = state.selected_group() else {
        return;
    };
    let style = if group.paused || group.recovering {
        look.bad()
    } else {
        Style::new().add_modifier(Modifier::BOLD)
    };
    let said = plain(&format!("{}: {}", group.name, why(group)));
    frame.render_widget(
        Paragraph::new(said).style(style).wrap(Wrap { trim: true }),
        area,
    );
}

fn limit_bars(frame: &mut Frame<'_>, area: Rect, state: &State, look: Look) {
    let Some(group) = state.selected_group() else {
        return;
    };
    let rows: Vec<Row<'_>> = group
        .deployments
        .iter()
        .flat_map(|one| limit_rows(one, look))
        .collect();
    let widths = [
        Constraint::Fill(2),
        Constraint::Length(21),
        Constraint::Length(22),
        Constraint::Fill(2),
    ];
    frame.render_widget(Table::new(rows, widths), area);
}

fn limit_rows(one: &Deployment, look: Look) -> Vec<Row<'static>> {
    let mut name = Some(plain(&one.id));
    let cooling = one.cooling_ms.filter(|ms| *ms > 0.0);
    let cooling = cooling.map(|ms| format!(" cools {}", time(ms)));
    let mut rows: Vec<Row<'static>> = Vec::new();
    let mut first = |limit: Option<&Limit>| {
        let name = Cell::from(name.take().map_or(String::new(), |name| {
            name + cooling.as_deref().unwrap_or_default()
        }));
        let Some(limit) = limit else {
            return Row::new([
                name,
                Cell::from("no limits"),
                Cell::default(),
                Cell::from(format!("{} open", one.open)),
            ]);
        };
        let style = if limit.is_full() {
            look.bad()
        } else {
            look.colour(Color::Blue)
        };
        let known = |limit: Option<u64>| limit.map_or("-".into(), |limit| limit.to_string());
        let mut figures = format!("{} of {}", known(limit.used), known(limit.in_force));
        if limit.is_changed() {
            figures += &format!(", was {}", known(limit.configured));
        }
        let full = if limit.is_full() { " FULL" } else { "" };
        Row::new([
            name,
            Cell::from(plain(&limit.limit)),
            Cell::from(bar(limit, 20)).style(style),
            Cell::from(figures + full),
        ])
    };
    if one.limits.is_empty() {
        rows.push(first(None));
    }
    rows.extend(one.limits.iter().map(|limit| first(Some(limit))));
    rows
}

/// `[######    ]`: a filled part is at least one column if anything is used, and all columns only if nothing more fits.
fn bar(limit: &Limit, width: u64) -> String {
    let most = limit.in_force.unwrap_or(0).max(1);
    let filled = match limit.used.unwrap_or_default().min(most) {
        0 => 0,
        used if limit.is_full() || used == most => width,
        used => (u128::from(used) * u128::from(width) / u128::from(most))
            .clamp(1, u128::from(width - 1)) as u64,
    };
    let columns = (0..width).map(|at| if at < filled { '#' } else { ' ' });
    format!("[{}]", columns.collect::<String>())
}

fn ticket_table(frame: &mut Frame<'_>, area: Rect, state: &State, look: Look) {
    let names = [
        "POS", "PRIO", "WAITS", "LEAST", "KEY", "TENANT", "TOKENS", "INSTANCE", "REQUEST",
    ];
    let header = Row::new(names.map(|name| marked(name, state.focus == Focus::Tickets)));
    let text = |text: &Option<String>| text.as_deref().map_or("-".into(), plain);
    let rows = state.tickets.tickets.iter().map(|one| {
        let position = match one.position {
            _ if one.held => "held".into(),
            None => "-".into(),
            Some(1) => "head".into(),
            Some(position) => position.to_string(),
        };
        let cells = [
            position,
            one.priority.to_string(),
            time(one.age_ms),
            maybe_time(one.least_wait_ms),
            text(&one.key),
            text(&one.tenant),
            one.tokens.map_or("-".into(), |tokens| tokens.to_string()),
            one.instance.as_deref().map_or("-".into(), short),
            text(&one.call_id),
        ];
        let row = Row::new(cells.map(Cell::from));
        if one.orphaned {
            row.style(look.soft())
        } else {
            row
        }
    });
    let widths = [
        Constraint::Length(6),
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Fill(2),
        Constraint::Fill(1),
        Constraint::Length(8),
        Constraint::Length(10),
        Constraint::Fill(3),
    ];
    let filter = if state.filter.is_empty() {
        String::new()
    } else {
        format!(", filtered by {}", plain(&state.filter))
    };
    let title = format!(
        " {} waiting in {}{filter} ",
        state.tickets.total,
        plain(&state.group)
    );
    let block = Block::new().borders(Borders::TOP).title(title);
    let selected = (!state.tickets.tickets.is_empty()).then_some(state.ticket);
    let table = Table::new(rows, widths).header(header).block(block);
    list(frame, area, table, selected, state.focus == Focus::Tickets);
}

fn footer(frame: &mut Frame<'_>, area: Rect, state: &State, look: Look) {
    let line = match &state.prompt {
        Some(prompt) => {
            let asked = match &prompt.asked {
                Asked::Filter => "Filter (key=, priority=, tenant=, instance=): ".to_owned(),
                Asked::Move { ticket, .. } => {
                    format!("Move ticket {} to priority: ", plain(ticket))
                }
                Asked::Cancel { ticket, .. } => {
                    format!("Cancel ticket {}, reason for its client: ", plain(ticket))
                }
                Asked::Pause { group } => format!(
                    "Pause {}, so that nothing of it is granted? y/n: ",
                    plain(group)
                ),
            };
            let width =
                u16::try_from(Line::from(asked.clone() + &prompt.text).width()).unwrap_or(0);
            frame.set_cursor_position((area.x + width.min(area.width.saturating_sub(1)), area.y));
            Line::from(vec![
                Span::styled(asked, look.odd()),
                Span::raw(prompt.text.clone()),
            ])
        }
        None if !state.said.is_empty() => Line::styled(plain(&state.said), look.odd()),
        None => Line::styled(
            "?:help Tab:switch s:sort /:filter p:pause m:move c:cancel q:quit",
            look.soft(),
        ),
    };
    frame.render_widget(Paragraph::new(line), area);
}

fn help(frame: &mut Frame<'_>) {
    let [area] = Layout::vertical([Constraint::Length(15)])
        .flex(ratatui::layout::Flex::Center)
        .areas(frame.area());
    let [area] = Layout::horizontal([Constraint::Max(78)])
        .flex(ratatui::layout::Flex::Center)
        .areas(area);
    frame.render_widget(Clear, area);
    frame.render_widget(
        Paragraph::new(HELP).block(Block::bordered().title(" Keys ")),
        area,
    );
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};
    use serde_json::json;

    use super::*;

    fn state() -> State {
        let mut state = State::default();
        let overview = json!({
            "instances": [{"ready": true, "answered": true}, {"ready": true, "answered": false}],
            "groups": [{
                "name": "gpt\u{1b}[31m", "depth": 12, "open": 3, "reasons": ["requests"], "next_free_ms": 1200.0,
                "classes": [{"class": "0", "waiting": 2, "waits": {"p99_ms": 44_000.0}}, {"class": "1000+", "waiting": 10}],
                "deployments": [{"id": "eu", "limits": [
                    {"limit": "rpm", "used": 60, "configured": 600, "in_force": 60},
                    {"limit": "tpm", "used": 1, "configured": 1000, "in_force": 1000},
                ]}],
            }],
        });
        state.take_overview(serde_json::from_value(overview).unwrap());
        let tickets = json!({"total": 12, "tickets": [{"ticket": "7", "position": 1, "priority": -5, "age_ms": 61_000.0, "key": "web"}]});
        let path = state.tickets_path().unwrap();
        state.take_tickets(&path, serde_json::from_value(tickets).unwrap());
        state
    }

    fn screen(state: &State, width: u16, height: u16, colour: bool) -> (String, bool) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| draw(frame, state, "http://here", Look { colour }))
            .unwrap();
        let buffer = terminal.backend().buffer();
        let coloured = buffer
            .content()
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        let lines = (0..height).map(|y| {
            (0..width)
                .map(|x| buffer[(x, y)].symbol())
                .collect::<String>()
        });
        (lines.collect::<Vec<_>>().join("\n"), coloured)
    }

    #[test]
    fn screen_shows_groups_limits_reason_and_tickets() {
        let (text, coloured) = screen(&state(), 120, 24, true);
        for shown in [
            "1 of 2 instances ready, 12 waiting, 3 open",
            "The head waits for room for requests. At least 1.2 s more.",
            "[####################] 60 of 60, was 600 FULL",
            "[#                   ] 1 of 1000",
            "44 s",
            "head",
            "61 s",
            "12 waiting in gpt",
            "?:help",
        ] {
            assert!(text.contains(shown), "{shown} in\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(coloured);
    }

    #[test]
    fn screen_without_colour_says_the_same() {
        let ((with, _), (without, coloured)) = (
            screen(&state(), 120, 24, true),
            screen(&state(), 120, 24, false),
        );
        assert_eq!(with, without);
        assert!(!coloured);
    }

    #[test]
    fn tiny_screens_and_an_empty_fleet_are_drawn() {
        for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 100)] {
            screen(&state(), width, height, true);
            screen(&State::default(), width, height, true);
            let mut help = state();
            help.help = true;
            screen(&help, width, height, true);
        }
    }
}
