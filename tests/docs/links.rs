//! Links between pages and to files have targets.

use std::collections::BTreeSet;
use std::path::Path;

use crate::page::{self, Page, ROOT};

/// The anchor of a heading: its letters, digits and hyphens, spaces as hyphens.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || "-_".contains(c) => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

fn anchors(page: &Page) -> BTreeSet<String> {
    let headings = page.text.lines().filter_map(|line| line.strip_prefix('#'));
    headings
        .map(|heading| anchor(heading.trim_start_matches('#').trim()))
        .collect()
}

/// The targets of a page's links, but those to other hosts.
fn links(page: &Page) -> impl Iterator<Item = &str> {
    let targets = page.text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://"))
}

#[test]
fn links_have_targets() {
    let pages = page::all();
    let mut count = 0;
    for page in &pages {
        let folder = Path::new(&page.name).parent().expect("a folder");
        for link in links(page) {
            count += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                page.name.clone()
            } else {
                joined(folder, file)
            };
            let exists = Path::new(ROOT).join(&target).exists();
            assert!(exists, "{}: no {target}", page.name);
            if let Some(there) = pages
                .iter()
                .find(|there| there.name == target)
                .filter(|_| !heading.is_empty())
            {
                assert!(
                    anchors(there).contains(heading),
                    "{}: {target} has no #{heading}",
                    page.name
                );
            }
        }
    }
    assert!(count > 30, "{count}");
}

/// A path as it is from the repository on.
fn joined(folder: &Path, file: &str) -> String {
    let mut parts: Vec<&str> = folder
        .to_str()
        .expect("text")
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    for part in file.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Every page is in the index, and README.md leads to it.
#[test]
fn every_page_is_in_the_index() {
    let pages = page::all();
    let find = |name: &str| {
        pages
            .iter()
            .find(|page| page.name == name)
            .unwrap_or_else(|| panic!("no {name}"))
    };
    let index: BTreeSet<&str> = links(find("docs/README.md")).collect();
    for page in pages.iter().filter(|page| page.name != "docs/README.md") {
        let Some(name) = page.name.strip_prefix("docs/") else {
            continue;
        };
        assert!(index.contains(name), "docs/README.md does not lead to {name}");
    }
    assert!(links(find("README.md")).any(|link| link == "docs/README.md"));
}

/// The book has every page, and no other.
#[test]
fn every_page_is_in_the_book() {
    let summary = Page::read(&Path::new(ROOT).join("docs/book/SUMMARY.md"));
    let chapters: BTreeSet<&str> = links(&summary).collect();
    for page in page::all() {
        assert!(
            chapters.contains(page.name.as_str()),
            "docs/book/SUMMARY.md: no {}",
            page.name
        );
    }
    for chapter in chapters {
        assert!(
            Path::new(ROOT).join(chapter).exists(),
            "docs/book/SUMMARY.md: {chapter}"
        );
    }
}
