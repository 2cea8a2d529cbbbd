//! Declarations that differ from their bytes: each kind of difference, found where it is.

use crate::blocks::{family, full_declaration, parsed};
use bitcoin::{
    Amount, CompactTarget, ScriptBuf, Sequence, Txid, Wtxid, absolute::LockTime, consensus, hashes::Hash,
};
use reservegrid::template::{
    CoinbaseParts, Declared, DeclaredTransaction, Discrepancy, DiscrepancyKind as Kind, Template,
    facts::assemble,
};

/// What is found after a change to a declaration without fault.
#[track_caller]
fn found(change: impl FnOnce(&mut Declared)) -> Vec<Discrepancy> {
    changed(change).discrepancies
}

#[track_caller]
fn changed(change: impl FnOnce(&mut Declared)) -> Template {
    let mut declared = full_declaration().clone();
    assert_eq!(assemble(&declared).unwrap().discrepancies, []);
    change(&mut declared);
    assemble(&declared).unwrap()
}

/// The only difference after a change.
#[track_caller]
fn only(kind: Kind, row: Option<u32>, change: impl FnOnce(&mut Declared)) -> (String, String) {
    let mut found = found(change);
    assert_eq!(found.len(), 1, "{found:?}");
    let Discrepancy { kind: k, transaction, declared, derived } = found.remove(0);
    assert_eq!((k, transaction), (kind, row));
    (declared, derived)
}

fn pair(declared: impl ToString, derived: impl ToString) -> (String, String) {
    (declared.to_string(), derived.to_string())
}

/// Changes the transaction in a row, and forgets what was declared about it.
fn rewrite(declared: &mut Declared, row: usize, change: impl FnOnce(&mut bitcoin::Transaction)) {
    let mut tx = parsed(declared, row);
    change(&mut tx);
    let fee = declared.transactions[row].fee;
    declared.transactions[row] =
        DeclaredTransaction { bytes: consensus::serialize(&tx), fee, ..Default::default() };
}

/// Declares the commitment and the path of what is there, after a change to the transactions.
fn settle(declared: &mut Declared) {
    let template = assemble(declared).unwrap();
    declared.witness_commitment_script = Some(template.witness_commitment_script());
    declared.merkle_path = Some(template.facts.merkle_path.clone());
    declared.transaction_count = Some(template.transactions.len() as u32);
    declared.coinbase_value = template.subsidy + template.facts.total_fees;
}

#[test]
fn a_target_that_bits_do_not_say() {
    let target = "7fffff0000000000000000000000000000000000000000000000000000000000";
    let difference = only(Kind::Target, None, |d| d.target = Some([0x7f; 32]));
    assert_eq!(difference, pair("7f".repeat(32), target));
    // Other bits are no difference as long as nothing else was declared: which bits are right, the tip says.
    assert_eq!(
        found(|d| {
            d.bits = CompactTarget::from_consensus(0x207f_fffe);
            d.target = None;
        }),
        []
    );
}

#[test]
fn a_coinbase_value_that_is_not_subsidy_and_fees() {
    let value = full_declaration().coinbase_value;
    let difference = only(Kind::CoinbaseValue, None, |d| d.coinbase_value += 1);
    assert_eq!(difference, pair(value + 1, value));
    // Fees that nobody can compute show in the sum.
    let row = (0..)
        .find(|row| {
            let mut without = full_declaration().clone();
            without.transactions[*row].fee = None;
            assemble(&without).is_err()
        })
        .unwrap();
    let difference =
        only(Kind::CoinbaseValue, None, |d| d.transactions[row].fee = d.transactions[row].fee.map(|f| f + 7));
    assert_eq!(difference, pair(value, value + 7));
    assert_eq!(found(|d| d.height += 150)[0].kind, Kind::CoinbaseValue, "the subsidy halves");
}

#[test]
fn a_merkle_path_that_is_not_the_transactions() {
    let path = full_declaration().merkle_path.clone().unwrap();
    let other = "00".repeat(32);
    let second = Txid::from_byte_array(path[1]);
    let difference = only(Kind::MerklePath, None, |d| d.merkle_path.as_mut().unwrap()[1] = [0; 32]);
    assert_eq!(difference, pair(format!("hash 1 is {other}"), format!("hash 1 is {second}")));
    let difference = only(Kind::MerklePath, None, |d| _ = d.merkle_path.as_mut().unwrap().pop());
    assert_eq!(difference, pair("5 hashes", "6 hashes"));
}

#[test]
fn a_witness_commitment_that_is_missing_or_of_other_transactions() {
    let right = full_declaration().witness_commitment_script.clone().unwrap().to_hex_string();
    let difference = only(Kind::WitnessCommitmentMissing, None, |d| d.witness_commitment_script = None);
    assert_eq!(difference, pair("none", &right));
    let wrong = ScriptBuf::from_bytes(vec![0x6a]);
    let difference =
        only(Kind::WitnessCommitment, None, |d| d.witness_commitment_script = Some(wrong.clone()));
    assert_eq!(difference, pair("6a", &right));
    // Without any witness there is nothing to commit to.
    let bare = found(|d| {
        d.transactions.clear();
        settle(d);
        d.witness_commitment_script = None;
    });
    assert_eq!(bare, []);
}

#[test]
fn a_commitment_in_a_coinbase_of_somebody_else_counts_as_declared() {
    let template = assemble(full_declaration()).unwrap();
    let whole = |change: fn(&mut bitcoin::Transaction)| {
        let mut coinbase = template.coinbase.transaction.clone();
        change(&mut coinbase);
        CoinbaseParts::of(&coinbase).expect("it ends in an extranonce")
    };
    assert_eq!(found(|d| d.coinbase = whole(|_| ())), []);
    let unnamed = |d: &mut Declared| {
        d.coinbase = whole(|_| ());
        d.witness_commitment_script = None;
    };
    assert_eq!(found(unnamed), [], "the coinbase says it");
    let right = template.witness_commitment_script().to_hex_string();
    let difference =
        only(Kind::WitnessCommitmentMissing, None, |d| d.coinbase = whole(|tx| drop(tx.output.pop())));
    assert_eq!(difference, pair("none", &right));
    let (declared, derived) = only(Kind::WitnessCommitment, None, |d| {
        d.coinbase = whole(|tx| {
            let mut script = tx.output[1].script_pubkey.to_bytes();
            script[37] ^= 1;
            tx.output[1].script_pubkey = ScriptBuf::from_bytes(script);
        });
    });
    assert_eq!(derived, right);
    assert_eq!((declared.len(), &declared[..74]), (76, &right[..74]));
}

#[test]
fn another_number_of_transactions_than_came() {
    assert_eq!(only(Kind::TransactionCount, None, |d| d.transaction_count = Some(61)), pair(61, 60));
}

#[test]
fn an_id_a_weight_or_a_sigop_cost_that_the_bytes_do_not_have() {
    let template = assemble(full_declaration()).unwrap();
    let facts = &template.facts;
    let zeros = "00".repeat(32);
    assert_eq!(
        only(Kind::Txid, Some(3), |d| d.transactions[3].txid = Some(Txid::all_zeros())),
        pair(&zeros, facts.txids[3])
    );
    assert_eq!(
        only(Kind::Wtxid, Some(4), |d| d.transactions[4].wtxid = Some(Wtxid::all_zeros())),
        pair(&zeros, facts.wtxids[4])
    );
    assert_eq!(
        only(Kind::Weight, Some(5), |d| d.transactions[5].weight = Some(u64::MAX)),
        pair(u64::MAX, facts.weights[5])
    );
    let mut lie = full_declaration().clone();
    lie.transactions[6].sigops = Some(9_999);
    let with_lie = assemble(&lie).unwrap();
    assert_eq!(with_lie.discrepancies[0].kind, Kind::Sigops);
    assert_eq!(with_lie.discrepancies[0].declared, "9999");
    assert_eq!(with_lie.facts.sigops[6], facts.sigops[6], "a cost out of bounds is not kept");
}

#[test]
fn a_fee_that_everything_spent_contradicts() {
    let base = full_declaration();
    let computable = |row: &usize| {
        let mut without = base.clone();
        without.transactions[*row].fee = None;
        assemble(&without).is_ok()
    };
    let row = (0..base.transactions.len()).find(computable).expect("there is a child of children");
    let fee = base.transactions[row].fee.unwrap();
    let difference = only(Kind::Fee, Some(row as u32), |d| d.transactions[row].fee = Some(fee + 5));
    assert_eq!(difference, pair(fee + 5, fee));
    let template = changed(|d| d.transactions[row].fee = Some(fee + 5));
    assert_eq!(template.facts.fees[row], fee, "the bytes count");
}

#[test]
fn a_transaction_that_stands_there_twice() {
    let txid = full_declaration().transactions[4].txid.unwrap();
    // At the end, so that no child of it is concerned.
    let difference = only(Kind::DuplicateTransaction, Some(60), |d| {
        d.transactions.push(d.transactions[4].clone());
        settle(d);
    });
    assert_eq!(difference, pair("once", format!("{txid} in row 4 too")));
}

#[test]
fn a_duplicate_between_parent_and_child_leaves_the_facts_as_they_are() {
    let (parent, child) = family(full_declaration());
    let template = changed(|d| {
        let again = d.transactions[parent].clone();
        d.transactions.insert(child + 1, again);
        settle(d);
    });
    let kinds: Vec<_> = template.discrepancies.iter().map(|d| (d.kind, d.transaction)).collect();
    assert_eq!(kinds, [(Kind::DuplicateTransaction, Some(child as u32 + 1))]);
    assert_eq!(template.facts.fees[child], full_declaration().transactions[child].fee.unwrap());
}

#[test]
fn an_output_spent_by_two_transactions() {
    let outpoint = parsed(full_declaration(), 0).input[0].previous_output;
    let inputs = parsed(full_declaration(), 0).input.len();
    let found = found(|d| {
        let mut tx = parsed(d, 0);
        tx.output[0].value -= Amount::ONE_SAT;
        d.transactions.push(DeclaredTransaction {
            bytes: consensus::serialize(&tx),
            fee: Some(1),
            ..Default::default()
        });
        settle(d);
    });
    assert_eq!(found.len(), inputs, "{found:?}");
    let (declared, derived) = pair(format!("{outpoint} spent once"), "in row 0 too");
    assert_eq!(found[0], Discrepancy { kind: Kind::DoubleSpend, transaction: Some(60), declared, derived });
}

#[test]
fn an_output_spent_twice_by_one_transaction() {
    let outpoint = parsed(full_declaration(), 3).input[0].previous_output;
    let difference = only(Kind::DoubleSpend, Some(3), |d| {
        rewrite(d, 3, |tx| {
            let again = tx.input[0].clone();
            tx.input.push(again);
        });
        d.transactions[3].fee = Some(0);
        // Its children are orphans now; what they cost was declared.
        settle(d);
    });
    assert_eq!(difference, pair(format!("{outpoint} spent once"), "in row 3 too"));
}

#[test]
fn a_child_before_its_parent() {
    let (parent, child) = family(full_declaration());
    let fee = full_declaration().transactions[child].fee.unwrap();
    let template = changed(|d| {
        let moved = d.transactions.remove(child);
        d.transactions.insert(0, moved);
        settle(d);
    });
    let first = &template.discrepancies[0];
    assert_eq!((first.kind, first.transaction), (Kind::TransactionOrder, Some(0)));
    assert_eq!(first.declared, format!("behind row {}", parent + 1));
    assert!(first.derived.starts_with("spends its output "), "{first:?}");
    assert_eq!(template.discrepancies.len(), 1, "one for each child: {:?}", template.discrepancies);
    assert_eq!(template.facts.fees[0], fee, "the parent is looked up wherever it stands");
}

#[test]
fn a_lock_time_that_this_block_does_not_reach() {
    let base = full_declaration();
    let (height, min_time) = (base.height, base.min_time);
    let with = |lock_time: u32, sequence: Sequence| {
        found(|d| {
            // The last one has no children.
            rewrite(d, 59, |tx| {
                tx.lock_time = LockTime::from_consensus(lock_time);
                tx.input.iter_mut().for_each(|input| input.sequence = sequence);
            });
            settle(d);
        })
    };
    let locked = Sequence::ENABLE_LOCKTIME_NO_RBF;
    assert_eq!(with(height - 1, locked), [], "a height is the last at which it is not final");
    assert_eq!(with(min_time - 2, locked), [], "so is a time, against the median time past");
    for (lock_time, limit) in [(height, height), (499_999_999, height), (min_time - 1, min_time - 1)] {
        let (declared, derived) = pair(format!("lock time below {limit}"), lock_time);
        let expected =
            Discrepancy { kind: Kind::TransactionNotFinal, transaction: Some(59), declared, derived };
        assert_eq!(with(lock_time, locked), [expected]);
        assert_eq!(with(lock_time, Sequence::MAX), [], "no sequence cares for {lock_time}");
    }
}

#[test]
fn a_clock_before_the_smallest_time_is_for_policies_to_judge() {
    assert_eq!(found(|d| d.current_time = d.min_time - 1), []);
}

#[test]
fn sixteen_of_each_kind_are_kept_in_block_order() {
    let found = found(|d| {
        d.coinbase_value += 1;
        for entry in &mut d.transactions[10..] {
            entry.weight = Some(1);
            entry.txid = Some(Txid::all_zeros());
        }
    });
    assert_eq!(found[0].kind, Kind::CoinbaseValue);
    let expected: Vec<_> =
        (10..26).flat_map(|row| [(Kind::Txid, Some(row)), (Kind::Weight, Some(row))]).collect();
    assert_eq!(found[1..].iter().map(|d| (d.kind, d.transaction)).collect::<Vec<_>>(), expected);
}

#[test]
fn words_of_a_source_are_cut_and_printable() {
    let long = ScriptBuf::from_bytes(vec![0xee; 100_000]);
    let (declared, _) =
        only(Kind::WitnessCommitment, None, |d| d.witness_commitment_script = Some(long.clone()));
    assert_eq!(declared, "ee".repeat(80));
}

#[test]
fn everything_that_a_policy_sees_is_in_the_digest() {
    let base = assemble(full_declaration()).unwrap();
    let changes: [fn(&mut Declared); 9] = [
        |d| d.bits = CompactTarget::from_consensus(0x1d00_ffff),
        |d| {
            d.bits = CompactTarget::from_consensus(0x1d00_ffff);
            d.network = bitcoin::Network::Signet;
        },
        |d| d.target = Some([1; 32]),
        |d| d.target = Some([2; 32]),
        |d| d.transaction_count = Some(1),
        |d| d.transactions[1].txid = Some(Txid::all_zeros()),
        |d| d.transactions[2].txid = Some(Txid::all_zeros()),
        |d| {
            let CoinbaseParts::Planned(spec) = &mut d.coinbase else { panic!("planned") };
            spec.tag = "/other/".to_owned();
        },
        |d| {
            let CoinbaseParts::Planned(spec) = &mut d.coinbase else { panic!("planned") };
            spec.payout = ScriptBuf::from_bytes(vec![0x52]).into();
        },
    ];
    let mut seen = vec![base.digest];
    for (i, change) in changes.into_iter().enumerate() {
        let mut declared = full_declaration().clone();
        change(&mut declared);
        let digest = assemble(&declared).unwrap().digest;
        assert!(!seen.contains(&digest), "change {i} does not change the digest");
        seen.push(digest);
    }
}
