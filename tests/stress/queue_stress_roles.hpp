// The producers and the consumers of the Queue stress: they work on their own until they are told
// to stop, are killed, or find that a promise is broken, which ends them with exit code 3.
#pragma once

#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "penstock/queue.hpp"
#include "tests/support/answers.hpp"
#include "tests/support/numbered.hpp"
#include "tests/support/scoreboard.hpp"
#include "tests/support/shared_table.hpp"
#include "tests/support/talk.hpp"

namespace penstock::trust {

inline constexpr unsigned kQueueProducers = 3;
inline constexpr unsigned kQueueConsumers = 3;
inline constexpr int kBrokenQueuePromise = 3;

// A producer's rank outlives its processes: message n of rank r has the number r * kMaxOfRank + n.
inline constexpr std::uint64_t kMaxOfRank = std::uint64_t{1} << 24U;
inline constexpr std::size_t kQueueTableWords = kQueueProducers * kMaxOfRank;

// Words of the scoreboard: the next number of a rank, and what all consumers acknowledged.
enum QueueScore : std::size_t { kNextOf = 0, kAcknowledged = 16, kAcceptedByAll = 24 };

// A message's word: noted before and after each act, so that a death between the two is seen.
enum MessageMark : std::uint64_t {
    kPutting = 1,
    kAccepted = 2,
    kOneAcked = std::uint64_t{1} << 8U,    // ack() returned
    kOneAcking = std::uint64_t{1} << 16U,  // ack() is about to be called
    kOneTaken = std::uint64_t{1} << 32U,
};
struct MessageMarks {
    explicit MessageMarks(std::uint64_t word)
        : is_put((word & kPutting) != 0), is_accepted((word & kAccepted) != 0),
          acked(word >> 8U & 0xFFU), acking(word >> 16U & 0xFFFFU), taken(word >> 32U) {}
    bool is_put;
    bool is_accepted;
    std::uint64_t acked;
    std::uint64_t acking;  // without its end: that process died, or is at it
    std::uint64_t taken;
};

[[noreturn]] inline void broken_queue_promise(const std::string& what) {
    std::fprintf(stderr, "pid %d: %s\n", static_cast<int>(::getpid()), what.c_str());
    ::_exit(kBrokenQueuePromise);
}

// A third lies in cells, a third in small blocks, a few in large ones. 8 bytes carry the number.
inline std::size_t pick_queue_size(Dice& dice) {
    const std::uint64_t kind = dice.between(0, 99);
    if (kind < 50) return dice.between(8, 64);
    if (kind < 95) return dice.between(65, 4096);
    return dice.between(4097, std::uint64_t{1} << 20U);
}

// A thread that works until it is told to stop. Never in the way asleep: its waits are short.
class Worker {
public:
    template <typename Work>
    void go(Work&& work) {
        thread_ = std::thread([this, work = std::forward<Work>(work)] {
            while (!is_stopping_.load()) work();
        });
    }
    void stop() {
        is_stopping_ = true;
        if (thread_.joinable()) thread_.join();
    }

private:
    std::atomic<bool> is_stopping_{false};
    std::thread thread_;
};

// queue-producer NAME SCOREBOARD TABLE RANK SEED: "go", then "stop" or a death.
class StressProducer {
public:
    explicit StressProducer(const Words& words)
        : score_(words.at(1)), table_(words.at(2), kQueueTableWords),
          rank_(std::stoull(words.at(3))), dice_(std::stoull(words.at(4))),
          queue_(Queue::attach(words.at(0), QueueRole::Producer, Milliseconds(10'000))) {}

    Answer obey(const Words& words) {
        if (words[0] == "go") worker_.go([this] { put_one(); });
        if (words[0] == "stop") worker_.stop();
        if (words[0] == "close") queue_.close();
        return ok();
    }

private:
    void put_one() {
        const std::uint64_t next = score_[kNextOf + rank_].fetch_add(1);
        if (next >= kMaxOfRank) broken_queue_promise("the table of messages is too small");
        const std::uint64_t number = rank_ * kMaxOfRank + next;
        table_[number].fetch_or(kPutting);
        const Status status = attempt(number, pick_queue_size(dice_));
        if (!status) broken_queue_promise("put: " + std::string(status.message()));
        table_[number].fetch_or(kAccepted);
        score_[kAcceptedByAll].fetch_add(1);
    }
    // A quarter through a loan, written in place; the rest copied.
    Status attempt(std::uint64_t number, std::size_t size) {
        const Wait wait = Milliseconds(15'000);
        if (dice_.between(0, 3) == 0) {
            Result<QueueLoan> loan = queue_.loan(size, wait);
            if (!loan) return loan.status();
            fill_numbered(loan->bytes(), number);
            return loan->commit(Format::Bytes, wait);
        }
        buffer_.resize(size);
        fill_numbered(buffer_, number);
        return queue_.put(buffer_, wait);
    }

    Scoreboard score_;
    SharedTable table_;
    std::uint64_t rank_;
    Dice dice_;
    Queue queue_;
    std::vector<std::byte> buffer_;
    Worker worker_;
};

inline int play_stress_producer(const Words& words) {
    StressProducer producer(words);
    return listen([&producer](const Words& asked) { return producer.obey(asked); });
}

// queue-consumer NAME SCOREBOARD TABLE SEED: takes; holds some, gives some back, acknowledges the
// rest in any order.
class StressConsumer {
public:
    explicit StressConsumer(const Words& words)
        : score_(words.at(1)), table_(words.at(2), kQueueTableWords),
          dice_(std::stoull(words.at(3))),
          queue_(Queue::attach(words.at(0), QueueRole::Consumer, Milliseconds(10'000))) {}

    Answer obey(const Words& words) {
        if (words[0] == "go") worker_.go([this] { take_one(); });
        if (words[0] == "stop") worker_.stop();
        if (words[0] == "close") {
            held_.clear();
            queue_.close();
        }
        return ok();
    }

private:
    void take_one() {
        constexpr Milliseconds kIdle{20};  // then everything held is let go
        Result<Delivery> delivery = queue_.take(kIdle);
        if (!delivery) {
            if (delivery.code() != ErrorCode::Timeout) {
                broken_queue_promise("take: " + std::string(delivery.status().message()));
            }
            while (!held_.empty()) let_go_of_one();
            return;
        }
        examine(*delivery);
        held_.push_back(*std::move(delivery));
        while (held_.size() > dice_.between(0, 6)) let_go_of_one();
    }

    void examine(const Delivery& delivery) {
        const std::uint64_t number = check(delivery);
        const MessageMarks before(table_[number].fetch_add(kOneTaken));
        const std::string name = "message " + std::to_string(number);
        if (!before.is_put) broken_queue_promise(name + " came, and was never put");
        if (before.acked > 0) broken_queue_promise(name + " came after it was acknowledged");
        if (delivery.is_redelivered()) return;
        if (before.taken > 0) broken_queue_promise(name + " came again and does not say so");
        const std::uint64_t rank = number / kMaxOfRank;
        const auto [last, is_first] = last_.try_emplace(rank, number);
        if (!is_first && last->second >= number) {
            broken_queue_promise(name + " came after " + std::to_string(last->second));
        }
        last->second = number;
    }
    static std::uint64_t check(const Delivery& delivery) {
        std::uint64_t number = ~std::uint64_t{0};
        if (delivery.bytes().size() >= sizeof number) {
            std::memcpy(&number, delivery.bytes().data(), sizeof number);
        }
        if (number >= kQueueTableWords) broken_queue_promise("a message without a number");
        const std::string wrong = check_numbered(delivery.bytes(), number);
        if (!wrong.empty()) broken_queue_promise(wrong);
        return number;
    }

    void let_go_of_one() {
        const auto at = static_cast<std::ptrdiff_t>(dice_.between(0, held_.size() - 1));
        Delivery delivery = std::move(held_[static_cast<std::size_t>(at)]);
        held_.erase(held_.begin() + at);
        const std::uint64_t number = check(delivery);  // it was not written over meanwhile
        if (dice_.between(0, 19) == 0) return delivery.nack();
        table_[number].fetch_add(kOneAcking);
        delivery.ack();
        const std::uint64_t before = table_[number].fetch_add(kOneAcked - kOneAcking);
        if (MessageMarks(before).acked > 0) {
            broken_queue_promise("message " + std::to_string(number) + " was acknowledged twice");
        }
        score_[kAcknowledged].fetch_add(1);
    }

    Scoreboard score_;
    SharedTable table_;
    Dice dice_;
    Queue queue_;
    std::deque<Delivery> held_;
    std::map<std::uint64_t, std::uint64_t> last_;  // of each rank: first deliveries
    Worker worker_;
};

inline int play_stress_consumer(const Words& words) {
    StressConsumer consumer(words);
    return listen([&consumer](const Words& asked) { return consumer.obey(asked); });
}

}  // namespace penstock::trust
