// A process that obeys commands with one Broadcast, as a writer, a reader, or both. It sends
// numbered messages, and checks those that it receives byte by byte before it answers.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "penstock/broadcast.hpp"
#include "tests/support/actor_program.hpp"
#include "tests/support/numbered.hpp"

namespace penstock::trust {

inline constexpr const char* kBroadcastRole = "broadcast-actor";

// "1/4711/stopped,0/-/expected": readers in an Answer's field.
inline std::string name_readers(const std::vector<BroadcastReaderState>& readers) {
    std::string text;
    for (const BroadcastReaderState& reader : readers) {
        if (!text.empty()) text += ',';
        text += std::to_string(reader.rank) + "/" + std::to_string(reader.pid) + "/" +
                (reader.life == BroadcastReaderState::Life::Expected ? "expected"
                 : reader.life == BroadcastReaderState::Life::Vacant ? "vacant"
                                                                     : "active") +
                (reader.stopped ? "/stopped" : "") + (reader.alive ? "/alive" : "");
    }
    return text.empty() ? "none" : text;
}

// Calls blocked_by() on a thread of its own, once, when the writer has been busy for a while.
class BlockWatch {
public:
    BlockWatch(const BroadcastWriter& writer, Milliseconds after)
        : thread_([this, &writer, after] {
              std::unique_lock lock(mutex_);
              if (over_.wait_for(lock, after, [this] { return is_over_; })) return;
              seen_ = name_readers(writer.blocked_by());
          }) {}
    BlockWatch(const BlockWatch&) = delete;
    BlockWatch& operator=(const BlockWatch&) = delete;
    ~BlockWatch() { finish(); }

    std::string finish() {
        {
            const std::lock_guard lock(mutex_);
            is_over_ = true;
        }
        over_.notify_all();
        if (thread_.joinable()) thread_.join();
        return seen_;
    }

private:
    std::mutex mutex_;
    std::condition_variable over_;
    bool is_over_ = false;
    std::string seen_ = "none";
    std::thread thread_;
};

class BroadcastActor : public ActorProgram {
public:
    BroadcastActor() {
        // NAME READERS CAPACITY LARGE raise|drop
        on("create", [this](const std::string& name, unsigned readers, std::uint64_t capacity,
                            std::uint64_t large, const std::string& on_death) {
            writer_.reset();
            sent_ = 0;
            deaths_ = 0;
            writer_.emplace(BroadcastWriter::create(
                name, {.readers = readers,
                       .capacity = capacity,
                       .large = large,
                       .on_reader_death =
                           on_death == "drop" ? OnReaderDeath::Drop : OnReaderDeath::Raise}));
        });
        on("attach", [this](const std::string& name, unsigned rank, const Wait& wait) {
            held_.clear();
            reader_.reset();
            is_first_ = true;
            reader_.emplace(BroadcastReader::attach(name, rank, wait));
        });
        on("remove", [](const std::string& name) {
            return ok().with("removed", remove_if_abandoned(name) ? 1 : 0);
        });
        on("close-writer", [this] {
            writer().close();
            return ok().with("sent", sent_).with("deaths", deaths_);
        });
        on("close-reader", [this] { reader().close(); });
        sending();
        receiving();
    }

private:
    void sending() {
        // COUNT SIZE WAIT: WAIT applies to each message.
        on("send", [this](std::uint64_t count, std::size_t size, const Wait& wait) {
            return send(count, size, wait);
        });
        // SIZE MS: sends one message within MS; also returns blocked_by() half way.
        on("watched-send", [this](std::size_t size, int span) {
            BlockWatch watch(writer(), Milliseconds(span / 2));
            const std::int64_t start = os::monotonic_ns();
            Answer answer = send(1, size, Milliseconds(span));
            return answer.with("took_us", (os::monotonic_ns() - start) / 1000)
                .with("blocked_by", watch.finish());
        });
        on("loan", [this](std::size_t size, const Wait& wait) { return loan(size, wait); });
        on("drop", [this] { loan_.reset(); });
        on("loan-commit", [this](std::size_t size, const Wait& wait) {
            Status status = loan(size, wait);
            if (status) status = loan_.value().commit();
            loan_.reset();
            return status ? ok().with("sent", ++sent_) : failure_of(status);
        });
        on("loan-drop", [this](std::size_t size, const Wait& wait) {
            const Status status = loan(size, wait);
            loan_.reset();
            return status;
        });
        on("wait-ready", [this](const Wait& wait) { return writer().wait_ready(wait); });
        on("stats", [this] {
            const BroadcastStats stats = writer().stats();
            return ok()
                .with("held_bytes", stats.held_bytes)
                .with("reader_deaths", stats.reader_deaths);
        });
    }
    void receiving() {
        // COUNT: checks and releases each; ends at the first failure.
        on("recv", [this](std::uint64_t count, const Wait& wait) { return receive(count, wait); });
        // The same until there are no more.
        on("drain", [this](const Wait& wait) { return receive(~std::uint64_t{0}, wait); });
        // Receives one message into a buffer of its size.
        on("recv-into", [this](const Wait& wait) { return receive_into(wait); });
        // Receives one message and holds it.
        on("hold", [this](const Wait& wait) {
            Result<BroadcastMessage> message = reader().recv(wait);
            if (!message) return failure_of(message.status());
            if (Answer wrong = examine(*message); !wrong.is_ok()) return wrong;
            held_.emplace_back(std::move(*message));
            return ok().with("next", next_);
        });
        // The number of a held message, from 0.
        on("keep", [this](std::size_t at) { held_.at(at).value().keep(); });
        on("release", [this](std::size_t at) { held_.at(at).reset(); });
        // All held and kept messages have their bytes still.
        on("recheck", [this] {
            std::string wrong;
            for (const std::optional<BroadcastMessage>& message : held_) {
                if (message) wrong += check_numbered(message->bytes(), message->sequence());
            }
            return intact(wrong);
        });
    }

    // Repeats a send that reports the death of a reader; counts these, and the longest time to the
    // first report.
    Answer send(std::uint64_t count, std::size_t size, const Wait& wait) {
        buffer_.resize(size);
        std::int64_t slowest_error = 0;
        Status status;
        while (count > 0) {
            fill_numbered(buffer_, sent_);
            const std::int64_t start = os::monotonic_ns();
            status = writer().send(buffer_, wait);
            if (status) {
                ++sent_;
                --count;
                continue;
            }
            slowest_error = std::max(slowest_error, os::monotonic_ns() - start);
            if (status.code() != ErrorCode::PeerDied) break;
            ++deaths_;
            last_dead_ = status.peer();
        }
        return (status ? ok() : failure_of(status))
            .with("sent", sent_)
            .with("error_us", slowest_error / 1000)
            .with("deaths", deaths_)
            .with("last_dead", last_dead_);
    }
    Status loan(std::size_t size, const Wait& wait) {
        Result<BroadcastLoan> loan = writer().loan(size, wait);
        if (!loan) return loan.status();
        fill_numbered(loan->bytes(), sent_);
        loan_.emplace(std::move(*loan));
        return {};
    }

    Answer receive(std::uint64_t count, const Wait& wait) {
        Answer answer = ok();
        for (; count > 0 && answer.is_ok(); --count) {
            const Result<BroadcastMessage> message = reader().recv(wait);
            answer = message ? examine(*message) : failure_of(message.status());
        }
        return answer.with("first", first_).with("next", next_);
    }
    Answer receive_into(const Wait& wait) {
        const Result<std::size_t> size = reader().next_size(wait);
        if (!size) return failure_of(size.status());
        buffer_.resize(*size);
        const Result<std::size_t> got = reader().recv_into(buffer_, Deadline::now());
        if (!got) return failure_of(got.status());
        std::uint64_t number = 0;  // its first word
        std::memcpy(&number, buffer_.data(), std::min(sizeof number, buffer_.size()));
        if (std::exchange(is_first_, false)) first_ = next_ = number;
        const Answer checked = intact(check_numbered(buffer_, next_));
        return checked.is_ok() ? ok().with("next", ++next_) : checked;
    }
    // The message is in order, and as it was sent.
    Answer examine(const BroadcastMessage& message) {
        if (std::exchange(is_first_, false)) first_ = next_ = message.sequence();
        if (message.sequence() != next_) {
            return {"OutOfOrder",
                    {},
                    "message " + std::to_string(message.sequence()) + " came where " +
                        std::to_string(next_) + " was due"};
        }
        return intact(check_numbered(message.bytes(), next_++));
    }
    BroadcastWriter& writer() { return writer_.value(); }
    BroadcastReader& reader() { return reader_.value(); }

    std::optional<BroadcastWriter> writer_;
    std::optional<BroadcastLoan> loan_;
    std::uint64_t sent_ = 0;
    std::uint64_t deaths_ = 0;  // that the writer reported
    int last_dead_ = -1;
    std::vector<std::byte> buffer_;
    std::optional<BroadcastReader> reader_;
    std::vector<std::optional<BroadcastMessage>> held_;
    bool is_first_ = true;
    std::uint64_t first_ = 0;
    std::uint64_t next_ = 0;
};

inline int play_broadcast_actor(const Words&) {
    return BroadcastActor().run();
}

}  // namespace penstock::trust
