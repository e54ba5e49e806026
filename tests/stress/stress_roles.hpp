// The writer and the readers of the Broadcast stress: they work on their own until they are told to
// stop, are killed, or find that a promise is broken, which ends them with exit code 3.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "penstock/broadcast.hpp"
#include "tests/support/broadcast_actor.hpp"
#include "tests/support/numbered.hpp"
#include "tests/support/scoreboard.hpp"
#include "tests/support/talk.hpp"

namespace penstock::trust {

inline constexpr unsigned kStressReaders = 3;
inline constexpr std::uint64_t kStressCapacity = std::uint64_t{1} << 20U;
inline constexpr std::uint64_t kStressLarge = std::uint64_t{64} << 20U;
inline constexpr std::uint64_t kLastSize = 300'000;  // of the two messages that settle the arena
inline constexpr int kBrokenPromise = 3;

// Words of the scoreboard.
enum StressScore : std::size_t { kAccepted = 0, kReceivedBy = 8, kFirstOf = 16 };

[[noreturn]] inline void broken_promise(const std::string& what) {
    std::fprintf(stderr, "pid %d: %s\n", static_cast<int>(::getpid()), what.c_str());
    ::_exit(kBrokenPromise);
}

// Mostly small, some that fill the ring, some that take a block; also nothing at all.
inline std::size_t pick_size(Dice& dice) {
    const std::uint64_t kind = dice.between(0, 99);
    if (kind < 40) return dice.between(0, 64);
    if (kind < 80) return dice.between(65, 4096);
    if (kind < 96) return dice.between(4097, kStressCapacity / 4);
    return dice.between(kStressCapacity / 4 + 1, std::uint64_t{3} << 20U);
}

// stress-writer NAME SCOREBOARD SEED: sends until it is asked to "stop".
class StressWriter {
public:
    StressWriter(const std::string& name, const std::string& scoreboard, std::uint64_t seed)
        : score_(scoreboard), dice_(seed),
          writer_(BroadcastWriter::create(
              name,
              {.readers = kStressReaders, .capacity = kStressCapacity, .large = kStressLarge})) {}

    Answer obey(const Words& words) {
        if (words[0] == "go") {
            sender_ = std::thread([this] {
                while (!is_stopping_.load()) send(pick_size(dice_));
            });
        } else if (words[0] == "stop") {
            is_stopping_ = true;
            sender_.join();
        } else if (words[0] == "send") {
            send(std::stoull(words.at(1)));
        }
        const BroadcastStats stats = writer_.stats();  // Closed after the close
        if (words[0] == "close") writer_.close();
        return ok()
            .with("sent", sent_)
            .with("told", told_)
            .with("reader_deaths", stats.reader_deaths)
            .with("held_bytes", stats.held_bytes);
    }

private:
    void send(std::size_t size) {
        for (;;) {
            const Status status = attempt(size);
            if (status) break;
            if (status.code() != ErrorCode::PeerDied) {
                broken_promise("send: " + std::string(status.message()));
            }
            ++told_;
        }
        score_[kAccepted].store(++sent_);
    }
    // A third through a loan, written in place; the rest copied.
    Status attempt(std::size_t size) {
        const Wait wait = Milliseconds(15'000);
        if (dice_.between(0, 2) == 0) {
            Result<BroadcastLoan> loan = writer_.loan(size, wait);
            if (!loan) return loan.status();
            fill_numbered(loan->bytes(), sent_);
            return loan->commit();
        }
        buffer_.resize(size);
        fill_numbered(buffer_, sent_);
        return writer_.send(buffer_, wait);
    }

    Scoreboard score_;
    Dice dice_;
    BroadcastWriter writer_;
    std::vector<std::byte> buffer_;
    std::uint64_t sent_ = 0;
    std::uint64_t told_ = 0;
    std::atomic<bool> is_stopping_{false};
    std::thread sender_;
};

inline int play_stress_writer(const Words& words) {
    StressWriter writer(words.at(0), words.at(1), std::stoull(words.at(2)));
    return listen([&writer](const Words& asked) { return writer.obey(asked); });
}

// stress-reader NAME SCOREBOARD RANK SEED: "attach MS", then "drain": receives to the end, holding
// some, keeping some, letting go in any order. What it got is in the answer.
class StressReader {
public:
    explicit StressReader(const Words& words)
        : name_(words.at(0)), score_(words.at(1)),
          rank_(static_cast<unsigned>(std::stoul(words.at(2)))), dice_(std::stoull(words.at(3))) {}

    Answer obey(const Words& words) {
        try {
            if (words[0] == "attach") {
                reader_.emplace(BroadcastReader::attach(name_, rank_, wait_of(words.at(1))));
                return ok();
            }
            return drain();
        } catch (const Error& error) {
            return failure_of(Status(error.code(), error.what()));
        }
    }

private:
    Answer drain() {
        received_ = first_ = next_ = 0;
        for (;;) {
            constexpr Milliseconds kIdle{20};  // then everything held is let go
            if (received_ > 0 && dice_.between(0, 1) == 0 && copy_one(kIdle)) continue;
            Result<BroadcastMessage> message = reader_.value().recv(kIdle);
            if (message) {
                take(std::move(*message));
                continue;
            }
            held_.clear();
            if (message.code() == ErrorCode::Timeout) continue;
            if (message.code() == ErrorCode::Corrupt) {
                broken_promise(std::string(message.status().message()));
            }
            Answer end = failure_of(message.status());
            end.with("first", first_)
                .with("next", next_)
                .with("received", received_)
                .with("end", os::monotonic_ns());
            reader_.reset();
            return end;
        }
    }
    // Small messages can be copied out: that is another way through the reader.
    bool copy_one(Milliseconds idle) {
        const Result<std::size_t> size = reader_.value().recv_into(buffer_, idle);
        if (!size) return false;  // too large, or nothing more: recv() says what
        const std::string wrong = check_numbered(std::span(buffer_).first(*size), next_);
        if (!wrong.empty()) broken_promise(wrong);
        count();
        return true;
    }
    void take(BroadcastMessage message) {
        check(message);
        if (received_ == 0) {
            first_ = next_ = message.sequence();
            score_[kFirstOf + rank_].store(first_);
        }
        if (message.sequence() != next_) {
            broken_promise("message " + std::to_string(message.sequence()) + " came where " +
                           std::to_string(next_) + " was due");
        }
        count();
        if (dice_.between(0, 3) == 0) message.keep();
        held_.push_back(std::move(message));
        while (held_.size() > dice_.between(0, 6)) {
            const auto victim = static_cast<std::ptrdiff_t>(dice_.between(0, held_.size() - 1));
            check(held_.at(static_cast<std::size_t>(victim)));  // it was not written over meanwhile
            held_.erase(held_.begin() + victim);
        }
    }
    void count() {
        ++received_;
        ++next_;
        score_[kReceivedBy + rank_].fetch_add(1);
    }
    static void check(const BroadcastMessage& message) {
        const std::string wrong = check_numbered(message.bytes(), message.sequence());
        if (!wrong.empty()) broken_promise(wrong);
    }

    std::string name_;
    Scoreboard score_;
    unsigned rank_;
    Dice dice_;
    std::optional<BroadcastReader> reader_;
    std::deque<BroadcastMessage> held_;
    std::array<std::byte, 4096> buffer_{};
    std::uint64_t received_ = 0;
    std::uint64_t first_ = 0;
    std::uint64_t next_ = 0;
};

inline int play_stress_reader(const Words& words) {
    StressReader reader(words);
    return listen([&reader](const Words& asked) { return reader.obey(asked); });
}

}  // namespace penstock::trust
