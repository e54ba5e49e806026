// A process that does what it is told with one Broadcast: a writer, a reader, or both.
// What it sends is numbered; what it receives it checks byte by byte before it answers.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "os/crash_point.hpp"
#include "penstock/broadcast.hpp"
#include "tests/support/actor_role.hpp"
#include "tests/support/answers.hpp"
#include "tests/support/numbered.hpp"
#include "tests/support/talk.hpp"

namespace penstock::trust {

inline constexpr const char* kBroadcastRole = "broadcast-actor";

// "1/4711/stopped,0/-/expected": the readers named, for Answer fields.
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

// Asks blocked_by() on a thread of its own, once, when the writer has been busy for a while.
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

class BroadcastActor : public ActorRole<BroadcastActor> {
private:
    friend class ActorRole<BroadcastActor>;

    // create NAME READERS CAPACITY LARGE raise|drop
    Answer create(const Words& words) {
        writer_.reset();
        sent_ = 0;
        deaths_ = 0;
        writer_.emplace(BroadcastWriter::create(
            words.at(1), {.readers = static_cast<unsigned>(std::stoul(words.at(2))),
                          .capacity = std::stoull(words.at(3)),
                          .large = std::stoull(words.at(4)),
                          .on_reader_death =
                              words.at(5) == "drop" ? OnReaderDeath::Drop : OnReaderDeath::Raise}));
        return ok();
    }

    // attach NAME RANK MS
    Answer attach(const Words& words) {
        held_.clear();
        reader_.reset();
        is_first_ = true;
        reader_.emplace(BroadcastReader::attach(
            words.at(1), static_cast<unsigned>(std::stoul(words.at(2))), wait_of(words.at(3))));
        return ok();
    }

    // send COUNT SIZE MS: every message waits up to MS. Deaths of readers are counted, with how
    // long the first word of one took, and the message is sent again.
    Answer send(const Words& words) {
        const std::uint64_t count = std::stoull(words.at(1));
        buffer_.resize(std::stoull(words.at(2)));
        std::int64_t slowest_error = 0;
        Answer answer = ok();
        for (std::uint64_t i = 0; i < count;) {
            fill_numbered(buffer_, sent_);
            const std::int64_t start = os::monotonic_ns();
            const Status status = writer_.value().send(buffer_, wait_of(words.at(3)));
            if (status) {
                ++sent_;
                ++i;
                continue;
            }
            slowest_error = std::max(slowest_error, os::monotonic_ns() - start);
            if (status.code() == ErrorCode::PeerDied) {
                ++deaths_;
                last_dead_ = status.peer();
                continue;
            }
            answer = failure_of(status);
            break;
        }
        return answer.with("sent", sent_)
            .with("error_us", slowest_error / 1000)
            .with("deaths", deaths_)
            .with("last_dead", last_dead_);
    }

    // watched-send SIZE MS: one message; what blocked_by() said half way.
    Answer watched_send(const Words& words) {
        BlockWatch watch(writer_.value(), Milliseconds(std::stoi(words.at(2)) / 2));
        const std::int64_t start = os::monotonic_ns();
        Answer answer = send({"send", "1", words.at(1), words.at(2)});
        return answer.with("took_us", (os::monotonic_ns() - start) / 1000)
            .with("blocked_by", watch.finish());
    }

    // loan SIZE MS
    Answer loan(const Words& words) {
        Result<BroadcastLoan> loan =
            writer_.value().loan(std::stoull(words.at(1)), wait_of(words.at(2)));
        if (!loan) return failure_of(loan.status());
        fill_numbered(loan->bytes(), sent_);
        loan_.emplace(std::move(*loan));
        return ok();
    }
    Answer commit(const Words&) {
        const Status status = loan_.value().commit();
        loan_.reset();
        if (!status) return failure_of(status);
        return ok().with("sent", ++sent_);
    }
    Answer drop(const Words&) {
        loan_.reset();
        return ok();
    }
    Answer loan_and_commit(const Words& words) {
        const Answer loaned = loan(words);
        return loaned.is_ok() ? commit(words) : loaned;
    }
    Answer loan_and_drop(const Words& words) {
        const Answer loaned = loan(words);
        return loaned.is_ok() ? drop(words) : loaned;
    }

    // wait-ready MS
    Answer wait_ready(const Words& words) {
        const Status status = writer_.value().wait_ready(wait_of(words.at(1)));
        return status ? ok() : failure_of(status);
    }

    // recv COUNT MS: each checked and released; ends at the first failure.
    Answer recv(const Words& words) {
        return receive_up_to(std::stoull(words.at(1)), wait_of(words.at(2)));
    }
    // drain MS: until there is no more.
    Answer drain(const Words& words) {
        return receive_up_to(~std::uint64_t{0}, wait_of(words.at(1)));
    }
    Answer receive_up_to(std::uint64_t count, const Wait& wait) {
        Answer answer = ok();
        std::uint64_t received = 0;
        const std::int64_t start = os::monotonic_ns();
        std::int64_t first_at = 0;
        for (; received < count; ++received) {
            const Result<BroadcastMessage> message = reader_.value().recv(wait);
            if (first_at == 0) first_at = os::monotonic_ns() - start;
            if (!message) {
                answer = failure_of(message.status());
                break;
            }
            if (Answer wrong = examine(*message); !wrong.is_ok()) return wrong;
        }
        return answer.with("received", received)
            .with("first", first_)
            .with("next", next_)
            .with("first_event_us", first_at / 1000);
    }

    // recv-into MS: one message, into a buffer of its size. Its number is its first word.
    Answer recv_into(const Words& words) {
        const Result<std::size_t> size = reader_.value().next_size(wait_of(words.at(1)));
        if (!size) return failure_of(size.status());
        buffer_.resize(*size);
        const Result<std::size_t> got = reader_.value().recv_into(buffer_, Deadline::now());
        if (!got) return failure_of(got.status());
        std::uint64_t number = 0;
        std::memcpy(&number, buffer_.data(), std::min(sizeof number, buffer_.size()));
        if (is_first_) first_ = next_ = number;
        is_first_ = false;
        const std::string wrong = check_numbered(buffer_, next_);
        if (!wrong.empty()) return {"Torn", {}, wrong};
        return ok().with("next", ++next_);
    }
    // hold MS: receives one and holds it.
    Answer hold(const Words& words) {
        Result<BroadcastMessage> message = reader_.value().recv(wait_of(words.at(1)));
        if (!message) return failure_of(message.status());
        if (Answer wrong = examine(*message); !wrong.is_ok()) return wrong;
        held_.emplace_back(std::move(*message));
        return ok().with("next", next_);
    }
    // keep I | release I: the I-th held.
    Answer keep(const Words& words) {
        held_.at(std::stoull(words.at(1))).value().keep();
        return ok();
    }
    Answer release(const Words& words) {
        held_.at(std::stoull(words.at(1))).reset();
        return ok();
    }
    // recheck: everything held, or kept, still has the bytes it had.
    Answer recheck(const Words&) {
        for (const std::optional<BroadcastMessage>& message : held_) {
            if (!message) continue;
            const std::string wrong = check_numbered(message->bytes(), message->sequence());
            if (!wrong.empty()) return {"Torn", {}, wrong};
        }
        return ok();
    }

    // remove NAME
    Answer remove(const Words& words) {
        return ok().with("removed", remove_if_abandoned(words.at(1)) ? 1 : 0);
    }
    Answer stats(const Words&) {
        const BroadcastStats stats = writer_.value().stats();
        return ok()
            .with("held_bytes", stats.held_bytes)
            .with("reserved_bytes", stats.reserved_bytes)
            .with("reader_deaths", stats.reader_deaths)
            .with("messages", stats.messages);
    }
    Answer readers(const Words&) {
        return ok().with("readers", name_readers(writer_.value().readers()));
    }
    Answer close_writer(const Words&) {
        writer_.value().close();
        return ok().with("sent", sent_).with("deaths", deaths_);
    }
    Answer close_reader(const Words&) {
        reader_.value().close();
        return ok();
    }

    // In order, and as it was sent.
    Answer examine(const BroadcastMessage& message) {
        if (is_first_) first_ = next_ = message.sequence();
        is_first_ = false;
        if (message.sequence() != next_) {
            return {"OutOfOrder",
                    {},
                    "message " + std::to_string(message.sequence()) + " came where " +
                        std::to_string(next_) + " was due"};
        }
        const std::string wrong = check_numbered(message.bytes(), next_);
        if (!wrong.empty()) return {"Torn", {}, wrong};
        ++next_;
        return ok();
    }

    static const std::vector<Command> kCommands;

    std::optional<BroadcastWriter> writer_;
    std::optional<BroadcastLoan> loan_;
    std::uint64_t sent_ = 0;
    std::uint64_t deaths_ = 0;  // told of by the writer
    int last_dead_ = -1;
    std::vector<std::byte> buffer_;
    std::optional<BroadcastReader> reader_;
    std::vector<std::optional<BroadcastMessage>> held_;
    bool is_first_ = true;
    std::uint64_t first_ = 0;
    std::uint64_t next_ = 0;
};

inline const std::vector<BroadcastActor::Command> BroadcastActor::kCommands = {
    {"arm", &BroadcastActor::arm},
    {"trace", &BroadcastActor::trace},
    {"traced", &BroadcastActor::traced},
    {"create", &BroadcastActor::create},
    {"attach", &BroadcastActor::attach},
    {"send", &BroadcastActor::send},
    {"watched-send", &BroadcastActor::watched_send},
    {"loan", &BroadcastActor::loan},
    {"commit", &BroadcastActor::commit},
    {"drop", &BroadcastActor::drop},
    {"loan-commit", &BroadcastActor::loan_and_commit},
    {"loan-drop", &BroadcastActor::loan_and_drop},
    {"wait-ready", &BroadcastActor::wait_ready},
    {"recv", &BroadcastActor::recv},
    {"drain", &BroadcastActor::drain},
    {"recv-into", &BroadcastActor::recv_into},
    {"hold", &BroadcastActor::hold},
    {"keep", &BroadcastActor::keep},
    {"release", &BroadcastActor::release},
    {"recheck", &BroadcastActor::recheck},
    {"remove", &BroadcastActor::remove},
    {"stats", &BroadcastActor::stats},
    {"readers", &BroadcastActor::readers},
    {"close-writer", &BroadcastActor::close_writer},
    {"close-reader", &BroadcastActor::close_reader},
    {"depart", &BroadcastActor::depart},
};

inline int play_broadcast_actor(const Words&) {
    BroadcastActor actor;
    return listen([&actor](const Words& words) { return actor.obey(words); });
}

}  // namespace penstock::trust
