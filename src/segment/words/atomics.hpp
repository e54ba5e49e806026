// Loads, stores and read-modify-writes of shared words, named by ordering: no bare `=` touches such
// a word, and both halves of a pair are found by name.
//
// For std::atomic and std::atomic_ref, from any process and thread. Exceptions: fences, and atomics
// in private memory of src/os, of public headers and of the bindings.
#pragma once

#include <atomic>
#include <type_traits>

namespace penstock::detail {

template <typename Word>
using ValueOf = typename std::remove_cvref_t<Word>::value_type;

template <typename Word>
concept Atomic = std::remove_cvref_t<Word>::is_always_lock_free;

// Orders nothing: for counters, hints, and values that the acquire of another word covers.
[[nodiscard]] auto load_relaxed(const Atomic auto& word) noexcept {
    return word.load(std::memory_order_relaxed);
}
// Sees what was written before the release of the value.
[[nodiscard]] auto load_acquire(const Atomic auto& word) noexcept {
    return word.load(std::memory_order_acquire);
}
// An acquire in the one order of all sequentially consistent accesses.
[[nodiscard]] auto load_seq_cst(const Atomic auto& word) noexcept {
    return word.load(std::memory_order_seq_cst);
}

// Orders nothing: for values that a later release publishes, and for display.
void store_relaxed(Atomic auto&& word, ValueOf<decltype(word)> value) noexcept {
    word.store(value, std::memory_order_relaxed);
}
// Publishes what was written before to a load_acquire() of the value.
void store_release(Atomic auto&& word, ValueOf<decltype(word)> value) noexcept {
    word.store(value, std::memory_order_release);
}
// A release in that one order: comes before this thread's later load_seq_cst() of any word.
void store_seq_cst(Atomic auto&& word, ValueOf<decltype(word)> value) noexcept {
    word.store(value, std::memory_order_seq_cst);
}

// A counter with one writer, which needs no read-modify-write.
void add_as_sole_writer(Atomic auto& word, ValueOf<decltype(word)> amount) noexcept {
    store_relaxed(word, load_relaxed(word) + amount);
}

// Read-modify-writes; each returns the previous value.

// Counts; orders nothing.
auto fetch_add_relaxed(Atomic auto&& word, ValueOf<decltype(word)> amount) noexcept {
    return word.fetch_add(amount, std::memory_order_relaxed);
}
// Acquires what was released into the word, and releases.
auto fetch_add_acq_rel(Atomic auto&& word, ValueOf<decltype(word)> amount) noexcept {
    return word.fetch_add(amount, std::memory_order_acq_rel);
}
// Likewise, in the one order.
auto fetch_add_seq_cst(Atomic auto&& word, ValueOf<decltype(word)> amount) noexcept {
    return word.fetch_add(amount, std::memory_order_seq_cst);
}
auto fetch_sub_seq_cst(Atomic auto&& word, ValueOf<decltype(word)> amount) noexcept {
    return word.fetch_sub(amount, std::memory_order_seq_cst);
}
// Set bits; ordered as their names say.
auto fetch_or_relaxed(Atomic auto&& word, ValueOf<decltype(word)> bits) noexcept {
    return word.fetch_or(bits, std::memory_order_relaxed);
}
auto fetch_or_release(Atomic auto&& word, ValueOf<decltype(word)> bits) noexcept {
    return word.fetch_or(bits, std::memory_order_release);
}
auto fetch_or_acq_rel(Atomic auto&& word, ValueOf<decltype(word)> bits) noexcept {
    return word.fetch_or(bits, std::memory_order_acq_rel);
}
auto fetch_or_seq_cst(Atomic auto&& word, ValueOf<decltype(word)> bits) noexcept {
    return word.fetch_or(bits, std::memory_order_seq_cst);
}
// Clear the bits that `mask` lacks.
auto fetch_and_relaxed(Atomic auto&& word, ValueOf<decltype(word)> mask) noexcept {
    return word.fetch_and(mask, std::memory_order_relaxed);
}
auto fetch_and_release(Atomic auto&& word, ValueOf<decltype(word)> mask) noexcept {
    return word.fetch_and(mask, std::memory_order_release);
}
auto fetch_and_acq_rel(Atomic auto&& word, ValueOf<decltype(word)> mask) noexcept {
    return word.fetch_and(mask, std::memory_order_acq_rel);
}
auto fetch_and_seq_cst(Atomic auto&& word, ValueOf<decltype(word)> mask) noexcept {
    return word.fetch_and(mask, std::memory_order_seq_cst);
}

// Compare-and-swaps. True: the word was `expected` and is `desired`. False: `expected` is what the
// word holds, read with the acquire half of the order. Strong, also in loops: on x86-64 and with
// ARM's LSE a weak one is the same instruction.

// Orders nothing.
bool cas_relaxed(Atomic auto&& word, ValueOf<decltype(word)>& expected,
                 ValueOf<decltype(word)> desired) noexcept {
    return word.compare_exchange_strong(expected, desired, std::memory_order_relaxed);
}
// Acquires what a release published.
bool cas_acquire(Atomic auto&& word, ValueOf<decltype(word)>& expected,
                 ValueOf<decltype(word)> desired) noexcept {
    return word.compare_exchange_strong(expected, desired, std::memory_order_acquire);
}
// Releases; a failure orders nothing.
bool cas_release(Atomic auto&& word, ValueOf<decltype(word)>& expected,
                 ValueOf<decltype(word)> desired) noexcept {
    return word.compare_exchange_strong(expected, desired, std::memory_order_release);
}
// Acquires and releases: for words whose owner changes.
bool cas_acq_rel(Atomic auto&& word, ValueOf<decltype(word)>& expected,
                 ValueOf<decltype(word)> desired) noexcept {
    return word.compare_exchange_strong(expected, desired, std::memory_order_acq_rel);
}
// Likewise, in the one order, also when it fails.
bool cas_seq_cst(Atomic auto&& word, ValueOf<decltype(word)>& expected,
                 ValueOf<decltype(word)> desired) noexcept {
    return word.compare_exchange_strong(expected, desired, std::memory_order_seq_cst);
}

}  // namespace penstock::detail
