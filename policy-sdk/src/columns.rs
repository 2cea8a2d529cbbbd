//! Walks through columns at full speed.
//!
//! The gateway counts fuel and looks at the clock in every round of a loop, which costs more than most
//! rules do with a row. Here a round takes several rows, and nothing in it decides where it goes on.

/// Rows in one round.
const ROWS: usize = 16;

/// The sum of a column. It cannot come to more than 64 bits hold: the gateway lets no template through
/// whose fees are more than 21 million bitcoin.
pub fn sum(column: &[u64]) -> u64 {
    let add = |sum: u64, value: &u64| sum.wrapping_add(*value);
    let (rounds, rest) = column.as_chunks::<ROWS>();
    // Two sums side by side, so that neither waits for the other.
    let (left, right) = rounds.iter().fold((0, 0), |(left, right), round| {
        let (first, second) = round.split_at(ROWS / 2);
        (first.iter().fold(left, add), second.iter().fold(right, add))
    });
    rest.iter().fold(left.wrapping_add(right), add)
}

/// The first row of two columns for which `found` holds. It is asked about rows behind that one too.
pub fn first<A: Copy, B: Copy>(left: &[A], right: &[B], found: impl Fn(A, B) -> bool) -> Option<usize> {
    let holds = |(left, right): (&A, &B)| found(*left, *right);
    let rounds = left.as_chunks::<ROWS>().0.iter().zip(right.as_chunks::<ROWS>().0);
    let any = |(left, right): (&[A; ROWS], &[B; ROWS])| {
        left.iter().zip(right).fold(false, |any, row| any | holds(row))
    };
    let common = left.len().min(right.len());
    let start = ROWS * { rounds }.position(any).unwrap_or(common / ROWS);
    let at = left[start..common].iter().zip(&right[start..common]).position(holds)?;
    Some(start + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_that_of_all_rows_however_many_there_are() {
        for rows in 0..100 {
            let column: Vec<u64> = (1..=rows).collect();
            assert_eq!(sum(&column), rows * (rows + 1) / 2);
        }
    }

    #[test]
    fn the_first_row_is_found_wherever_it_is() {
        for rows in 0..70 {
            for at in 0..=rows {
                let left: Vec<usize> = (0..rows).collect();
                let right = vec![at; rows];
                let expected = (at < rows).then_some(at);
                assert_eq!(first(&left, &right, |row, from| row >= from), expected, "{at} of {rows}");
            }
        }
    }

    #[test]
    fn columns_of_different_length_end_with_the_shorter_one() {
        assert_eq!(first(&[1; 40], &[1; 20], |_, _| false), None);
        assert_eq!(first(&[0; 20], &[1; 40], |left, right| left == right), None);
        assert_eq!(first(&[] as &[u8], &[1], |_, _| true), None);
    }
}
