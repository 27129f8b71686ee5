//! Lines on their way to stderr. Those of a moment are written together, by a thread of its own: a request does not wait for a terminal or
//! a pipe, and does not pay for a system call.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// How long a line waits for others.
const GATHERED_FOR: Duration = Duration::from_millis(20);

/// Beyond so many bytes whoever adds a line writes all of them, and waits for it if it has to.
const MOST_BYTES: usize = 256 * 1024;

/// Lines that are not written yet, and where they go. Cheap to clone.
#[derive(Debug)]
pub(crate) struct Gathered<W>(Arc<Shared<W>>);

#[derive(Debug)]
struct Shared<W> {
    lines: Mutex<Vec<u8>>,
    some: Condvar,
    out: Mutex<Out<W>>,
}

#[derive(Debug)]
struct Out<W> {
    to: W,
    /// Taken over from `lines`, and given back empty.
    bytes: Vec<u8>,
}

// === impl Gathered ===

impl<W> Clone for Gathered<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W: io::Write + Send + 'static> Gathered<W> {
    /// `None`: the system gives no thread.
    pub(crate) fn start(to: W) -> Option<Self> {
        let lines = Self::new(to);
        let writer = lines.clone();
        let writes = move || writer.write_for_ever();
        let named = thread::Builder::new().name("log".into());
        named.spawn(writes).ok()?;
        Some(lines)
    }

    fn new(to: W) -> Self {
        let bytes = Vec::new();
        Self(Arc::new(Shared {
            lines: Mutex::default(),
            some: Condvar::new(),
            out: Mutex::new(Out { to, bytes }),
        }))
    }

    fn lines(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line. `urgent`: it is written now, after those before it.
    pub(crate) fn add(&self, line: &[u8], urgent: bool) {
        let (first, full) = {
            let mut lines = self.lines();
            let first = lines.is_empty();
            lines.extend_from_slice(line);
            (first, lines.len() > MOST_BYTES)
        };
        if urgent || full {
            self.write();
        } else if first {
            self.0.some.notify_one();
        }
    }

    /// Writes what there is.
    pub(crate) fn write(&self) {
        // The order of the locks is the order of the lines: what is added meanwhile is written later.
        let mut out = self.0.out.lock().unwrap_or_else(PoisonError::into_inner);
        let Out { to, bytes } = &mut *out;
        std::mem::swap(bytes, &mut *self.lines());
        // A closed stderr is no reason to stop.
        drop(to.write_all(bytes).and_then(|()| to.flush()));
        bytes.clear();
    }

    fn write_for_ever(&self) {
        loop {
            let lines = self.lines();
            let some = self.0.some.wait_while(lines, |lines| lines.is_empty());
            drop(some);
            thread::sleep(GATHERED_FOR);
            self.write();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_wait_for_the_writer_and_an_urgent_one_takes_them_along() {
        let sink = Sink::default();
        let lines = Gathered::new(sink.clone());
        lines.add(b"a\n", false);
        lines.add(b"b\n", false);
        assert_eq!(sink.text(), "");
        lines.add(b"c\n", true);
        assert_eq!(sink.text(), "a\nb\nc\n");
        lines.add(b"d\n", false);
        lines.write();
        lines.write();
        assert_eq!(sink.text(), "a\nb\nc\nd\n");
    }

    #[test]
    fn line_beyond_the_bound_is_written_where_it_is_added() {
        let sink = Sink::default();
        let lines = Gathered::new(sink.clone());
        let line = [b'x'; 1000];
        for _ in 0..=MOST_BYTES / line.len() {
            lines.add(&line, false);
            assert!(lines.lines().len() <= MOST_BYTES);
        }
        assert!(sink.text().len() > MOST_BYTES);
    }

    #[test]
    fn writer_loses_and_cuts_no_line_and_keeps_each_threads_order() {
        const LINES: usize = 2000;
        let sink = Sink::default();
        let lines = Gathered::start(sink.clone()).unwrap();
        let threads = ["a", "b", "c"].map(|name| {
            let lines = lines.clone();
            thread::spawn(move || {
                for number in 0..LINES {
                    lines.add(format!("{name} {number}\n").as_bytes(), number % 97 == 0);
                }
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
        // The writer has the rest.
        while sink.text().lines().count() < 3 * LINES {
            thread::yield_now();
        }
        for name in ["a", "b", "c"] {
            let text = sink.text();
            let own = text.lines().filter_map(|line| line.strip_prefix(name));
            let numbers: Vec<usize> = own.map(|line| line.trim().parse().unwrap()).collect();
            assert!(numbers.into_iter().eq(0..LINES), "{name}");
        }
    }
}
