// The fate of every message of a stress test with acknowledgements, noted in shared memory before
// and after each act, so that a death between the two shows.
#pragma once

#include "tests/stress/stress.hpp"

namespace penstock::trust {

// A message's number has its producer's rank, which outlives processes, and a number of its own.
// Any thread, any process.
class DeliveryLedger {
public:
    static constexpr unsigned kRanks = 8;
    static constexpr std::uint64_t kMaxOfRank = std::uint64_t{1} << 24U;

    DeliveryLedger() : words_(kTotals + kRanks * kMaxOfRank) {}
    explicit DeliveryLedger(const std::string& argument) : words_(argument) {}

    [[nodiscard]] std::string argument() const { return words_.argument(); }
    [[nodiscard]] static std::uint64_t rank_of(std::uint64_t number) { return number / kMaxOfRank; }
    // The number of acknowledged messages.
    std::atomic<std::uint64_t>& progress() { return words_[kAcknowledged]; }

    // ---- by a producer: takes a number, before put(); put() has returned

    std::uint64_t begin_put(std::uint64_t rank) {
        const std::uint64_t own = words_[rank].fetch_add(1);
        if (own >= kMaxOfRank) break_promise("the ledger is too small");
        const std::uint64_t number = rank * kMaxOfRank + own;
        word(number).fetch_or(kPutting);
        return number;
    }
    void accepted(std::uint64_t number) { word(number).fetch_or(kAccepted); }

    // ---- by a consumer: has taken it; before ack(); ack() has returned

    void taken(std::uint64_t number, bool is_redelivered) {
        if (number >= kRanks * kMaxOfRank) break_promise("a message without a number");
        const Marks before(word(number).fetch_add(kOneTaken));
        if (!before.is_put) broken(number, "came, and was never put");
        if (before.acked > 0) broken(number, "came after it was acknowledged");
        if (before.taken > 0 && !is_redelivered) broken(number, "came again and does not say so");
        if (is_redelivered) words_[kRedelivered].fetch_add(1);
    }
    void begin_ack(std::uint64_t number) { word(number).fetch_add(kOneAcking); }
    void acked(std::uint64_t number) {
        if (Marks(word(number).fetch_add(kOneAcked - kOneAcking)).acked > 0) {
            broken(number, "was acknowledged twice");
        }
        words_[kAcknowledged].fetch_add(1);
    }

    // ---- by the test: nothing more is put; all messages have been taken

    void end() { words_[kIsOver].store(1); }
    bool is_over() { return words_[kIsOver].load() != 0; }
    // Accepted messages: acknowledged once, certainly or by a consumer that died in an ack() of up
    // to `acks_at_once`. Messages whose producer died in put(): once or never.
    void check(std::uint64_t kills, std::uint64_t acks_at_once) {
        std::uint64_t put = 0;
        std::uint64_t accepted = 0;
        std::uint64_t undecided = 0;
        for (std::uint64_t rank = 0; rank < kRanks; ++rank) {
            for (std::uint64_t own = 0; own < words_[rank].load(); ++own) {
                const std::uint64_t number = rank * kMaxOfRank + own;
                const Marks marks(word(number).load());
                const std::string name = text_of("message ", number);
                require(marks.acked <= 1, name + " was acknowledged twice");
                require(marks.acked == 1 || marks.acking > 0 || !marks.is_accepted,
                        name + " was accepted and lost");
                ++put;
                accepted += marks.is_accepted ? 1 : 0;
                undecided += marks.acked == 0 && marks.acking > 0 ? 1 : 0;
            }
        }
        require(put - accepted <= kills, "more died in put() than died at all");
        require(undecided <= kills * acks_at_once, "more died in ack() than died at all");
        report("  ", kills, " killed, ", accepted,
               " messages accepted, every one acknowledged once (", undecided,
               " by one that died at it), ", words_[kRedelivered].load(), " times redelivered");
    }

private:
    // Words: the next number of each rank, totals, and a word for each message.
    enum Word : std::size_t { kAcknowledged = 16, kRedelivered, kIsOver, kTotals = 32 };
    enum Mark : std::uint64_t {
        kPutting = 1,
        kAccepted = 2,
        kOneAcked = std::uint64_t{1} << 8U,
        kOneAcking = std::uint64_t{1} << 16U,
        kOneTaken = std::uint64_t{1} << 32U,
    };
    struct Marks {
        explicit Marks(std::uint64_t word)
            : is_put((word & kPutting) != 0), is_accepted((word & kAccepted) != 0),
              acked(word >> 8U & 0xFFU), acking(word >> 16U & 0xFFFFU), taken(word >> 32U) {}
        bool is_put;
        bool is_accepted;
        std::uint64_t acked;
        std::uint64_t acking;  // ack() began and did not return
        std::uint64_t taken;
    };

    std::atomic<std::uint64_t>& word(std::uint64_t number) { return words_[kTotals + number]; }
    [[noreturn]] static void broken(std::uint64_t number, const char* what) {
        break_promise(text_of("message ", number, " ", what));
    }

    SharedWords words_;
};

}  // namespace penstock::trust
