//! What a person says to the products and versions that were found.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

use super::names::Versions;

/// Asks about each product: enter takes the newest, a version takes that one, `n` leaves it out.
pub(super) fn ask(
    products: &BTreeMap<String, Vec<String>>,
    mut from: impl BufRead,
    mut to: impl Write,
) -> io::Result<Versions> {
    let mut chosen = Versions::new();
    for (product, versions) in products {
        let Some(newest) = versions.first() else { continue };
        let others = match versions.get(1..).unwrap_or_default() {
            [] => String::new(),
            others => format!(", or {}", others.join(", ")),
        };
        loop {
            write!(to, "{product} {newest}? [Y/n{others}] ")?;
            to.flush()?;
            let mut answer = String::new();
            // A terminal that is closed says no more.
            if from.read_line(&mut answer)? == 0 {
                return Ok(chosen);
            }
            match answer.trim() {
                "" | "y" | "Y" | "yes" => drop(chosen.insert(product.clone(), newest.clone())),
                "n" | "N" | "no" => {}
                version if versions.iter().any(|one| one == version) => {
                    chosen.insert(product.clone(), version.to_owned());
                }
                other => {
                    writeln!(to, "`{other}` is none of them")?;
                    continue;
                }
            }
            break;
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_takes_another_version_or_none() {
        let products = [("a", &["2", "1"][..]), ("b", &["1"]), ("c", &["3"])];
        let products = products.iter().map(|(product, versions)| {
            ((*product).to_owned(), versions.iter().map(|version| (*version).to_owned()).collect())
        });
        let products: BTreeMap<String, Vec<String>> = products.collect();
        let mut said = Vec::new();
        let chosen = ask(&products, &b"9\n1\nn\n\n"[..], &mut said).unwrap();
        assert_eq!(chosen, [("a".to_owned(), "1".to_owned()), ("c".to_owned(), "3".to_owned())].into());
        let said = String::from_utf8(said).unwrap();
        assert!(
            said.contains("a 2? [Y/n, or 1] `9` is none of them\n") && said.contains("b 1? [Y/n] "),
            "{said}"
        );
        assert_eq!(ask(&products, &b""[..], &mut Vec::new()).unwrap().len(), 0);
    }
}
