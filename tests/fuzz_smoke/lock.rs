//! windlass.lock: what is read is written as it would be, and read again the same.

use windlass::recipe::Lock;

pub(crate) fn run(text: &str) {
    match Lock::parse(text) {
        Ok(lock) => assert_eq!(Lock::parse(&lock.to_text()).expect("it reads its own"), lock),
        Err(problems) => {
            let _ = (problems.render(false), problems.render(true));
        }
    }
}
