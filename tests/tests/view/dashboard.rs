//! The dashboard in a real browser: what a person sees of a rejection, and changes at the keyboard.

use super::{Pool, config};
use anyhow::{Context, Result, ensure};
use reservegrid_tests::{browser::Browser, gateway::DEADLINE, pair::with_floor};
use serde_json::Value;
use std::path::PathBuf;

/// Where pictures go: `RESERVEGRID_SCREENSHOTS`, or a folder that goes with the test.
fn pictures() -> Result<(PathBuf, Option<tempfile::TempDir>)> {
    match std::env::var_os("RESERVEGRID_SCREENSHOTS") {
        Some(folder) => {
            std::fs::create_dir_all(&folder)?;
            Ok((folder.into(), None))
        }
        None => {
            let folder = tempfile::tempdir()?;
            Ok((folder.path().to_owned(), Some(folder)))
        }
    }
}

/// Goes to a button by the keyboard's way and presses it.
async fn press(browser: &mut Browser, button: &str) -> Result<()> {
    browser.wait_for(button, &format!("!document.getElementById('{button}').disabled")).await?;
    browser.eval(&format!("document.getElementById('{button}').focus()")).await?;
    browser.press("Enter").await
}

/// The policy set that the page shows.
async fn set(browser: &mut Browser) -> Result<Value> {
    browser.eval("document.getElementById('set').textContent").await
}

async fn wait_for_other_set(browser: &mut Browser, than: &Value) -> Result<Value> {
    browser
        .wait_for("another set", &format!("document.getElementById('set').textContent !== {than}"))
        .await?;
    set(browser).await
}

#[tokio::test]
async fn a_rejection_is_seen_with_its_reason_and_policies_are_swapped_and_rolled_back_at_the_keyboard()
-> Result<()> {
    let mut pool = Pool::start(|backend| config(backend, 400), 6_000).await?;
    let mut browser = Browser::start().await?;
    browser.window(1440, 1000, false).await?;
    browser.dark(false).await?;
    browser.open(pool.gateway.api()?).await?;
    browser.wait_for("the stream", "document.getElementById('live').textContent === 'live'").await?;

    // A rejection: its code, its words with what was measured, and the policy that decided.
    let card = "document.querySelector('#verdict-list [data-code=avg_fee_below_minimum]')";
    browser.wait_for("a rejection", &format!("!!{card}")).await?;
    let said = browser.eval(&format!("{card}.querySelector('summary').innerText")).await?;
    let said = said.as_str().context("a text")?;
    ensure!(said.contains("avg_fee_below_minimum") && said.contains("fee-floor"), "{said}");
    browser.eval(&format!("{card}.open = true")).await?;
    let details = browser.eval(&format!("{card}.innerText")).await?;
    ensure!(details.as_str().is_some_and(|text| text.contains("400")), "what was required: {details}");
    browser.wait_for("both miners", "document.querySelectorAll('#miner-rows tr').length === 2").await?;
    browser.wait_for("the gate", "document.getElementById('phase').dataset.phase === 'following'").await?;

    // Another policy in the file: first what it would change, then the change, then back.
    let first = set(&mut browser).await?;
    with_floor(&pool.config, 1)?.write()?;
    press(&mut browser, "compare").await?;
    let difference = "document.getElementById('difference').innerText";
    browser.wait_for("the difference", &format!("{difference}.includes('newly accepted')")).await?;
    ensure!(set(&mut browser).await? == first, "a dry run changes nothing");
    press(&mut browser, "swap").await?;
    browser.wait_for("the question", "document.getElementById('sure').open").await?;
    browser.press("Escape").await?;
    browser.wait_for("no question", "!document.getElementById('sure').open").await?;
    ensure!(
        pool.gateway.events_named("policy_set_swapped")?.is_empty(),
        "a person who steps back changes nothing"
    );
    press(&mut browser, "swap").await?;
    browser.wait_for("the question", "document.getElementById('sure').open").await?;
    browser.press("Enter").await?;
    let second = wait_for_other_set(&mut browser, &first).await?;
    pool.gateway.wait_for_event("the swap", DEADLINE, |e| e["event"] == "policy_set_swapped").await?;
    ensure!(pool.gateway.events_named("policy_set_swapped")?.len() == 1);
    press(&mut browser, "rollback").await?;
    browser.wait_for("the question", "document.getElementById('sure').open").await?;
    browser.press("Enter").await?;
    ensure!(wait_for_other_set(&mut browser, &second).await? == first, "the first set is back");
    pool.gateway.wait_for_event("the rollback", DEADLINE, |e| e["event"] == "policy_set_rolled_back").await?;

    // By keyboard from the top: the first stop leads over the header, and where one is can be seen.
    browser
        .eval("document.activeElement.blur(), window.scrollTo(0, 0), document.querySelector('.skip').focus()")
        .await?;
    browser.press("Enter").await?;
    browser.press("Tab").await?;
    let outline = browser.eval("getComputedStyle(document.activeElement).outlineStyle").await?;
    ensure!(outline == "solid", "the focus is not to be seen: {outline}");
    let landmarks = "['header', 'nav', 'main', 'footer', 'h1', '[aria-live]'].every((name) => document.querySelector(name))";
    ensure!(browser.eval(landmarks).await? == true);

    look(&mut browser).await?;
    ensure!(browser.errors().is_empty(), "the page has errors: {:?}", browser.errors());
    Ok(())
}

/// Pictures in light, dark and on a phone, where nothing may be wider than the screen.
async fn look(browser: &mut Browser) -> Result<()> {
    let tips = "document.querySelectorAll('#switches rect').length >= 3";
    browser.wait_for("some tip switches", tips).await?;
    let hashrate = "!document.querySelector('#hashrate-chart .empty')";
    browser.wait_for("the hashrate over time", hashrate).await?;
    let (folder, _keep) = pictures()?;
    for (name, width, height, dark, phone) in [
        ("light", 1440, 1000, false, false),
        ("dark", 1440, 1000, true, false),
        ("phone", 390, 844, true, true),
        ("phone-light", 390, 844, false, true),
    ] {
        browser.window(width, height, phone).await?;
        browser.dark(dark).await?;
        let top = "document.activeElement.blur(), window.scrollTo({ top: 0, behavior: 'instant' })";
        browser.eval(top).await?;
        browser
            .eval("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            .await?;
        let theme = browser.eval("document.documentElement.dataset.theme").await?;
        ensure!(theme == if dark { "dark" } else { "light" }, "{name}: {theme}");
        let wide = browser.eval("document.documentElement.scrollWidth - window.innerWidth").await?;
        ensure!(wide.as_i64() <= Some(0), "{name}: the page is {wide} pixels too wide");
        let file = folder.join(format!("{name}.png"));
        browser.picture(&file).await?;
        ensure!(std::fs::metadata(&file)?.len() > 20_000, "{name}: the picture is empty");
    }
    Ok(())
}
