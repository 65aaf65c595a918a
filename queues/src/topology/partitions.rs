//! Which partition a key belongs to. Every version of the library, and every program in another language, must come to the
//! same answer: it never changes.

/// The queue `NAME.p0`, `NAME.p1`, ….
pub(super) fn queue(name: &str, partition: u16) -> String {
    format!("{name}.p{partition}")
}

/// FNV-1a (64 bits) of the key's bytes, modulo the number of partitions.
pub(super) fn of(key: &str, partitions: u16) -> u16 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let hash = key.bytes().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    u16::try_from(hash % u64::from(partitions.max(1))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_in_the_partition_that_it_has_always_had() {
        // FNV-1a's published test vectors: 0xcbf29ce484222325, 0xaf63dc4c8601ec8c, 0x85944171f73967e8.
        assert_eq!([of("", 1000), of("a", 1000), of("foobar", 1000)], [37, 996, 968]);
        assert_eq!(["acct_1", "acct_2", "acct_3"].map(|key| of(key, 8)), [2, 7, 4]);
    }

    #[test]
    fn keys_are_spread_over_all_partitions() {
        let mut counts = [0_u32; 16];
        for number in 0..16_000 {
            counts[usize::from(of(&format!("acct_{number}"), 16))] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
