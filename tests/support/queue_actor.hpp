// A process that does what it is told with one Queue: a producer, a consumer, or both.
// What it puts is numbered, the actor's own number in front; what it takes it checks byte by byte
// before it answers, and says which messages they were.
#pragma once

#include <signal.h>

#include <array>
#include <cstring>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "os/crash_point.hpp"
#include "penstock/queue.hpp"
#include "tests/support/actor_role.hpp"
#include "tests/support/answers.hpp"
#include "tests/support/numbered.hpp"
#include "tests/support/talk.hpp"

namespace penstock::trust {

inline constexpr const char* kQueueRole = "queue-actor";

// Message n of actor a has the number a * kMaxOfOne + n. Messages have 8 bytes at least.
inline constexpr std::uint64_t kMaxOfOne = 1'000'000;

inline std::uint64_t number_in(std::span<const std::byte> message) {
    std::uint64_t number = 0;
    if (message.size() >= sizeof number) std::memcpy(&number, message.data(), sizeof number);
    return number;
}

// A blow that falls only after the process was stopped and resumed once: so that a test can strike
// what a put does after it was overtaken. The handler runs where the process stood still, at a
// crash point, which holds no lock there.
class SecondBlow {
public:
    // Stops at `first`; `second` (empty: a fresh trace) is armed when the process is resumed.
    static void prepare(const std::string& first, const std::string& second) {
        second_ = second;
        struct sigaction action{};
        action.sa_handler = [](int) {
            ::signal(SIGCONT, SIG_DFL);
            if (second_.empty()) {
                os::start_crash_trace();
            } else {
                os::arm_crash_point(second_.c_str());
            }
        };
        ::sigaction(SIGCONT, &action, nullptr);
        os::arm_crash_point((first + ":1:stop").c_str());
    }

private:
    static inline std::string second_;
};

class QueueActor : public ActorRole<QueueActor> {
public:
    explicit QueueActor(std::uint64_t number) : number_(number) {}

private:
    friend class ActorRole<QueueActor>;

    // arm NAME:N:kill|stop
    Answer arm(const Words& words) {
        blow_ = words.at(1);
        os::arm_crash_point(blow_.c_str());
        return ok();
    }
    // create NAME SLOTS CAPACITY MEMBERS [POISON_LIMIT [last_producer]]
    Answer create(const Words& words) {
        held_.clear();
        queue_.reset();
        const bool is_shared = words.size() > 6 && words.at(6) == "last_producer";
        queue_.emplace(Queue::create(
            words.at(1),
            {.capacity = std::stoull(words.at(3)),
             .slots = static_cast<unsigned>(std::stoul(words.at(2))),
             .inline_bytes = 256,
             .participants = static_cast<unsigned>(std::stoul(words.at(4))),
             .max_deliveries =
                 words.size() > 5 ? static_cast<unsigned>(std::stoul(words.at(5))) : 0U,
             .ends_with = is_shared ? EndsWith::LastProducer : EndsWith::Creator}));
        return ok();
    }
    // attach NAME any|producer|consumer MS
    Answer attach(const Words& words) {
        held_.clear();
        queue_.reset();
        const QueueRole role = words.at(2) == "producer"   ? QueueRole::Producer
                               : words.at(2) == "consumer" ? QueueRole::Consumer
                                                           : QueueRole::Any;
        queue_.emplace(Queue::attach(words.at(1), role, wait_of(words.at(3))));
        return ok();
    }

    // put COUNT SIZE MS: one after another; ends at the first failure.
    Answer put(const Words& words) {
        const std::uint64_t count = std::stoull(words.at(1));
        std::vector<std::byte> message(std::stoull(words.at(2)));
        for (std::uint64_t i = 0; i < count; ++i) {
            fill_numbered(message, next_number());
            const Status status = queue_.value().put(message, wait_of(words.at(3)));
            if (!status) return counted(failure_of(status));
            ++accepted_;
        }
        return counted(ok());
    }
    // put-many COUNT SIZE MS: the same in one call.
    Answer put_many(const Words& words) {
        std::vector<std::vector<std::byte>> messages(std::stoull(words.at(1)));
        std::vector<std::span<const std::byte>> views;
        for (std::vector<std::byte>& message : messages) {
            message.resize(std::stoull(words.at(2)));
            fill_numbered(message, next_number() + views.size());
            views.emplace_back(message);
        }
        const Result<std::size_t> put = queue_.value().put_many(views, wait_of(words.at(3)));
        if (!put) return counted(failure_of(put.status()));
        accepted_ += *put;
        return counted(ok());
    }
    // put-overtaken SIZE MS: stops before it publishes. What is armed, or traced, begins when the
    // process is resumed.
    Answer put_overtaken(const Words& words) {
        SecondBlow::prepare("queue.put.written", blow_);
        return put({"put", "1", words.at(1), words.at(2)});
    }
    // loan SIZE MS
    Answer loan(const Words& words) {
        Result<QueueLoan> loan =
            queue_.value().loan(std::stoull(words.at(1)), wait_of(words.at(2)));
        if (!loan) return counted(failure_of(loan.status()));
        fill_numbered(loan->bytes(), next_number());
        loan_.emplace(*std::move(loan));
        return counted(ok());
    }
    Answer loan_and_commit(const Words& words) {
        Answer loaned = loan(words);
        if (!loaned.is_ok()) return loaned;
        const Status status = loan_.value().commit(Format::Bytes, wait_of(words.at(2)));
        loan_.reset();
        if (!status) return counted(failure_of(status));
        ++accepted_;
        return counted(ok());
    }
    Answer loan_and_drop(const Words& words) {
        Answer loaned = loan(words);
        loan_.reset();
        return loaned;
    }

    // hold MS: takes one and holds it.
    Answer hold(const Words& words) {
        Result<Delivery> delivery = queue_.value().take(wait_of(words.at(1)));
        if (!delivery) return failure_of(delivery.status());
        Receipt receipt;
        if (Answer wrong = receipt.note(*delivery); !wrong.is_ok()) return wrong;
        held_.push_back(*std::move(delivery));
        return receipt.finish(ok());
    }
    // ack | nack: what it has held longest.
    Answer ack(const Words&) {
        held_.at(0).ack();
        held_.pop_front();
        return ok();
    }
    Answer nack(const Words&) {
        held_.at(0).nack();
        held_.pop_front();
        return ok();
    }
    // take-nack MS
    Answer take_and_nack(const Words& words) {
        Answer held = hold(words);
        if (held.is_ok()) nack(words);
        return held;
    }
    // recheck: everything held still has the bytes it had.
    Answer recheck(const Words&) {
        for (const Delivery& delivery : held_) {
            const std::string wrong = check_numbered(delivery.bytes(), number_in(delivery.bytes()));
            if (!wrong.empty()) return {"Torn", {}, wrong};
        }
        return ok();
    }

    // recv COUNT MS: each checked and acknowledged; ends at the first failure.
    Answer recv(const Words& words) {
        return receive(std::stoull(words.at(1)), 0, wait_of(words.at(2)));
    }
    // recv-to NUMBER MS: until this message has come.
    Answer recv_to(const Words& words) {
        return receive(~std::uint64_t{0}, std::stoull(words.at(1)), wait_of(words.at(2)));
    }
    // take-whole COUNT MS: so many in one call, checked and acknowledged.
    Answer take_whole(const Words& words) {
        const std::size_t count = std::stoull(words.at(1));
        std::vector<Delivery> batch;
        const Status status = queue_.value().take_many(batch, count, wait_of(words.at(2)), count);
        if (!status) return failure_of(status);
        Receipt receipt;
        for (Delivery& delivery : batch) {
            if (Answer wrong = receipt.note(delivery); !wrong.is_ok()) return wrong;
            delivery.ack();
        }
        return receipt.finish(ok());
    }
    // drain MS: until there is no more.
    Answer drain(const Words& words) { return receive(~std::uint64_t{0}, 0, wait_of(words.at(1))); }
    // get MS: one, copied out. How often it was delivered is not told.
    Answer get(const Words& words) {
        std::vector<std::byte> buffer(4096);
        const Result<std::size_t> size = queue_.value().get(buffer, wait_of(words.at(1)));
        if (!size) return failure_of(size.status());
        buffer.resize(*size);
        const std::uint64_t number = number_in(buffer);
        const std::string wrong = check_numbered(buffer, number);
        if (!wrong.empty()) return {"Torn", {}, wrong};
        return ok().with("copied", number);
    }

    Answer stats(const Words&) {
        const QueueStats stats = queue_.value().stats();
        return ok()
            .with("queued", stats.queued)
            .with("held_bytes", stats.held_bytes)
            .with("deaths", stats.deaths);
    }
    Answer close(const Words&) {
        queue_.value().close();
        return counted(ok());
    }
    Answer end(const Words&) {
        queue_.value().end();
        return ok();
    }
    Answer discard(const Words&) { return ok().with("dropped", queue_.value().discard()); }
    Answer requeue(const Words&) { return moved(queue_.value().requeue_dead_letters()); }
    Answer drop(const Words&) { return moved(queue_.value().drop_dead_letters()); }
    static Answer moved(const Result<std::uint64_t>& count) {
        return count ? ok().with("moved", *count) : failure_of(count.status());
    }
    // inspect NAME
    Answer inspect(const Words& words) {
        return ok().with("queued", inspect_queue(words.at(1)).stats.queued);
    }
    // remove NAME
    Answer remove(const Words& words) {
        return ok().with("removed", remove_if_abandoned(words.at(1), OnData::Remove) ? 1 : 0);
    }

    // What was received: "number/deliveries/sequence,..." in the order in which it came.
    class Receipt {
    public:
        Answer note(const Delivery& delivery) {
            const std::uint64_t number = number_in(delivery.bytes());
            const std::string wrong = check_numbered(delivery.bytes(), number);
            if (!wrong.empty()) return {"Torn", {}, wrong};
            text_ += (text_.empty() ? "" : ",") + std::to_string(number) + "/" +
                     std::to_string(delivery.deliveries()) + "/" +
                     std::to_string(delivery.sequence());
            return ok();
        }
        Answer finish(Answer answer) const { return answer.with("got", text_); }

    private:
        std::string text_;
    };
    Answer receive(std::uint64_t count, std::uint64_t last, const Wait& wait) {
        Receipt receipt;
        for (std::uint64_t received = 0; received < count; ++received) {
            Result<Delivery> delivery = queue_.value().take(wait);
            if (!delivery) return receipt.finish(failure_of(delivery.status()));
            const std::uint64_t number = number_in(delivery->bytes());
            if (Answer wrong = receipt.note(*delivery); !wrong.is_ok()) return wrong;
            delivery->ack();
            if (number == last) break;
        }
        return receipt.finish(ok());
    }

    [[nodiscard]] std::uint64_t next_number() const { return number_ * kMaxOfOne + accepted_; }
    Answer counted(Answer answer) const { return answer.with("accepted", accepted_); }

    static const std::vector<Command> kCommands;

    std::uint64_t number_;
    std::uint64_t accepted_ = 0;
    std::string blow_;
    std::optional<Queue> queue_;
    std::optional<QueueLoan> loan_;
    std::deque<Delivery> held_;
};

inline const std::vector<QueueActor::Command> QueueActor::kCommands = {
    {"arm", &QueueActor::arm},
    {"trace", &QueueActor::trace},
    {"traced", &QueueActor::traced},
    {"create", &QueueActor::create},
    {"attach", &QueueActor::attach},
    {"put", &QueueActor::put},
    {"put-many", &QueueActor::put_many},
    {"put-overtaken", &QueueActor::put_overtaken},
    {"loan", &QueueActor::loan},
    {"loan-commit", &QueueActor::loan_and_commit},
    {"loan-drop", &QueueActor::loan_and_drop},
    {"hold", &QueueActor::hold},
    {"ack", &QueueActor::ack},
    {"nack", &QueueActor::nack},
    {"take-nack", &QueueActor::take_and_nack},
    {"recheck", &QueueActor::recheck},
    {"recv", &QueueActor::recv},
    {"recv-to", &QueueActor::recv_to},
    {"take-whole", &QueueActor::take_whole},
    {"drain", &QueueActor::drain},
    {"get", &QueueActor::get},
    {"stats", &QueueActor::stats},
    {"close", &QueueActor::close},
    {"depart", &QueueActor::depart},
    {"end", &QueueActor::end},
    {"discard", &QueueActor::discard},
    {"requeue", &QueueActor::requeue},
    {"drop", &QueueActor::drop},
    {"inspect", &QueueActor::inspect},
    {"remove", &QueueActor::remove},
};

// queue-actor NUMBER
inline int play_queue_actor(const Words& arguments) {
    QueueActor actor(std::stoull(arguments.at(0)));
    return listen([&actor](const Words& words) { return actor.obey(words); });
}

}  // namespace penstock::trust
