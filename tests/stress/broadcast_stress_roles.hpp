// Writer and readers of the Broadcast stress: they work on their own until they are told to stop,
// are killed, or find a broken promise, which ends them with exit code 3.
#pragma once

#include <array>
#include <deque>
#include <optional>

#include "penstock/broadcast.hpp"
#include "tests/stress/stress.hpp"

namespace penstock::trust {

inline constexpr unsigned kStressReaders = 3;
inline constexpr std::uint64_t kStressCapacity = std::uint64_t{1} << 20U;
inline constexpr std::uint64_t kStressLarge = std::uint64_t{64} << 20U;
inline constexpr std::uint64_t kLastSize = 300'000;  // of the two messages that reuse all blocks

// Words that all processes share.
enum BroadcastScore : std::size_t { kAccepted = 0, kReceivedBy = 8, kFirstOf = 16, kScores = 24 };

// Mostly small messages, some that fill the ring, some in a block; some empty.
inline std::size_t pick_size(Dice& dice) {
    const std::uint64_t kind = dice.between(0, 99);
    if (kind < 40) return dice.between(0, 64);
    if (kind < 80) return dice.between(65, 4096);
    if (kind < 96) return dice.between(4097, kStressCapacity / 4);
    return dice.between(kStressCapacity / 4 + 1, std::uint64_t{3} << 20U);
}

// stress-writer NAME SCORES SEED: sends from "go" to "stop"; "send SIZE".
class StressWriter : public StressWorker<StressWriter> {
public:
    explicit StressWriter(const Words& words)
        : score_(words.at(1)), dice_(std::stoull(words.at(2))),
          writer_(BroadcastWriter::create(
              words.at(0),
              {.readers = kStressReaders, .capacity = kStressCapacity, .large = kStressLarge})) {}

    Answer report(const Words& words) {
        if (words[0] == "send") send(std::stoull(words.at(1)));
        const BroadcastStats stats = writer_.stats();
        return ok()
            .with("told", told_)
            .with("reader_deaths", stats.reader_deaths)
            .with("held_bytes", stats.held_bytes);
    }
    void turn() { send(pick_size(dice_)); }
    void close() { writer_.close(); }

private:
    void send(std::size_t size) {
        for (Status status = attempt(size); !status; status = attempt(size)) {
            if (status.code() != ErrorCode::PeerDied) {
                break_promise(text_of("send: ", status.message()));
            }
            ++told_;
        }
        score_[kAccepted].store(++sent_);
    }
    // A third through a loan, written in place; the rest copied.
    Status attempt(std::size_t size) {
        const Wait wait = Milliseconds(15'000);
        if (dice_.between(0, 2) == 0) {
            auto loan = writer_.loan(size, wait);
            if (!loan) return loan.status();
            fill_numbered(loan->bytes(), sent_);
            return loan->commit();
        }
        buffer_.resize(size);
        fill_numbered(buffer_, sent_);
        return writer_.send(buffer_, wait);
    }

    SharedWords score_;
    Dice dice_;
    BroadcastWriter writer_;
    std::vector<std::byte> buffer_;
    std::uint64_t sent_ = 0;
    std::uint64_t told_ = 0;
};

// stress-reader NAME SCORES RANK SEED: "attach MS", then "drain": receives to the end, holds some
// messages, keeps some, and releases them in any order. The answer says what it received.
class StressReader {
public:
    explicit StressReader(const Words& words)
        : name_(words.at(0)), score_(words.at(1)),
          rank_(static_cast<unsigned>(std::stoul(words.at(2)))), dice_(std::stoull(words.at(3))) {}

    Answer obey(const Words& words) {
        try {
            if (words[0] != "attach") return drain();
            reader_.emplace(BroadcastReader::attach(name_, rank_, wait_of(words.at(1))));
            return ok();
        } catch (const Error& error) {
            return failure_of(Status(error.code(), error.what()));
        }
    }

private:
    Answer drain() {
        received_ = first_ = next_ = 0;
        for (;;) {
            constexpr Milliseconds kIdle{20};  // then all held messages are released
            if (received_ > 0 && dice_.between(0, 1) == 0 && copy_one(kIdle)) continue;
            auto message = reader_.value().recv(kIdle);
            if (message) {
                take(*std::move(message));
                continue;
            }
            held_.clear();
            if (message.code() == ErrorCode::Timeout) continue;
            if (message.code() == ErrorCode::Corrupt) {
                break_promise(std::string(message.status().message()));
            }
            reader_.reset();
            return failure_of(message.status())
                .with("next", next_)
                .with("received", received_)
                .with("end", os::monotonic_ns());
        }
    }
    // Copies a small message out: another way through the reader.
    bool copy_one(Milliseconds idle) {
        const Result<std::size_t> size = reader_.value().recv_into(buffer_, idle);
        if (!size) return false;  // too large, or no message: recv() says which
        promise_whole(std::span(buffer_).first(*size), next_);
        count();
        return true;
    }
    void take(BroadcastMessage message) {
        promise_whole(message.bytes(), message.sequence());
        if (received_ == 0) score_[kFirstOf + rank_].store(first_ = next_ = message.sequence());
        if (message.sequence() != next_) {
            break_promise(
                text_of("message ", message.sequence(), " came where ", next_, " was due"));
        }
        count();
        if (dice_.between(0, 3) == 0) message.keep();
        held_.push_back(std::move(message));
        while (held_.size() > dice_.between(0, 6)) {
            const auto victim =
                held_.begin() + static_cast<std::ptrdiff_t>(dice_.between(0, held_.size() - 1));
            promise_whole(victim->bytes(), victim->sequence());  // it was not overwritten
            held_.erase(victim);
        }
    }
    void count() {
        ++received_;
        ++next_;
        score_[kReceivedBy + rank_].fetch_add(1);
    }

    std::string name_;
    SharedWords score_;
    unsigned rank_;
    Dice dice_;
    std::optional<BroadcastReader> reader_;
    std::deque<BroadcastMessage> held_;
    std::array<std::byte, 4096> buffer_{};
    std::uint64_t received_ = 0;
    std::uint64_t first_ = 0;
    std::uint64_t next_ = 0;
};

}  // namespace penstock::trust
