// A process that obeys commands with one Queue, as a producer, a consumer, or both. Its messages
// are numbered, with the actor's own number in front; those that it takes it checks byte by byte
// before it answers, with their numbers.
#pragma once

#include <signal.h>

#include <cstring>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "penstock/queue.hpp"
#include "tests/support/actor_program.hpp"
#include "tests/support/numbered.hpp"

namespace penstock::trust {

inline constexpr const char* kQueueRole = "queue-actor";

// Message n of actor a has the number a * kMaxOfOne + n. Messages have 8 bytes at least.
inline constexpr std::uint64_t kMaxOfOne = 1'000'000;

inline std::uint64_t number_in(std::span<const std::byte> message) {
    std::uint64_t number = 0;
    if (message.size() >= sizeof number) std::memcpy(&number, message.data(), sizeof number);
    return number;
}

// A blow that falls only after the process was stopped and resumed once, so that a test can strike
// what a put does after it was overtaken. The handler runs at the crash point where the process
// stood, which holds no lock.
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

class QueueActor : public ActorProgram {
public:
    explicit QueueActor(std::uint64_t number) : number_(number) {
        on("arm", [this](const std::string& blow) {
            blow_ = blow;
            os::arm_crash_point(blow_.c_str());
        });
        // NAME MAX_DELIVERIES creator|last_producer: which of them ends the stream.
        on("create", [this](const std::string& name, unsigned limit, const std::string& ends) {
            held_.clear();
            queue_.reset();
            queue_.emplace(Queue::create(
                name,
                {.capacity = std::uint64_t{1} << 20U,
                 .slots = 8,
                 .inline_bytes = 256,
                 .participants = 8,
                 .max_deliveries = limit,
                 .ends_with = ends == "creator" ? EndsWith::Creator : EndsWith::LastProducer}));
        });
        // NAME any|producer|consumer
        on("attach", [this](const std::string& name, const std::string& role, const Wait& wait) {
            held_.clear();
            queue_.reset();
            queue_.emplace(Queue::attach(name,
                                         role == "producer"   ? QueueRole::Producer
                                         : role == "consumer" ? QueueRole::Consumer
                                                              : QueueRole::Any,
                                         wait));
        });
        on("close", [this] {
            queue().close();
            return counted({});
        });
        on("end", [this] { queue().end(); });
        on("discard", [this] { return ok().with("dropped", queue().discard()); });
        on("requeue", [this] { return moved(queue().requeue_dead_letters()); });
        on("drop", [this] { return moved(queue().drop_dead_letters()); });
        on("stats", [this] { return ok().with("dead_letters", queue().stats().dead_letters); });
        on("inspect", [](const std::string& name) {
            return ok().with("queued", inspect_queue(name).stats.queued);
        });
        on("remove", [](const std::string& name) {
            return ok().with("removed", remove_if_abandoned(name, OnData::Remove) ? 1 : 0);
        });
        putting();
        taking();
    }

private:
    void putting() {
        // COUNT SIZE WAIT: one after another; ends at the first failure.
        on("put", [this](std::uint64_t count, std::size_t size, const Wait& wait) {
            return put(count, size, wait);
        });
        // The same in one call.
        on("put-many", [this](std::uint64_t count, std::size_t size, const Wait& wait) {
            return put_many(count, size, wait);
        });
        // Stops before it publishes the first. The armed point, or the trace, begins when the
        // process is resumed.
        on("put-overtaken", [this](std::size_t size, const Wait& wait) {
            SecondBlow::prepare("queue.put.written", blow_);
            return put(1, size, wait);
        });
        on("put-many-overtaken", [this](std::uint64_t count, std::size_t size, const Wait& wait) {
            SecondBlow::prepare("queue.put.written", blow_);
            return put_many(count, size, wait);
        });
        on("loan",
           [this](std::size_t size, const Wait& wait) { return counted(loan(size, wait)); });
        on("loan-commit", [this](std::size_t size, const Wait& wait) {
            Status status = loan(size, wait);
            if (status) status = loan_.value().commit(Format::Bytes, wait);
            loan_.reset();
            if (status) ++accepted_;
            return counted(status);
        });
        on("loan-drop", [this](std::size_t size, const Wait& wait) {
            const Status status = loan(size, wait);
            loan_.reset();
            return counted(status);
        });
    }
    void taking() {
        // Takes a message and holds it.
        on("hold", [this](const Wait& wait) { return hold(wait); });
        // Acknowledges the message held longest.
        on("ack", [this] {
            held_.at(0).ack();
            held_.pop_front();
        });
        on("nack", [this] { nack(); });
        on("take-nack", [this](const Wait& wait) {
            const Answer held = hold(wait);
            if (held.is_ok()) nack();
            return held;
        });
        // All held messages have their bytes still.
        on("recheck", [this] {
            std::string wrong;
            for (const Delivery& delivery : held_) {
                wrong += check_numbered(delivery.bytes(), number_in(delivery.bytes()));
            }
            return intact(wrong);
        });
        // COUNT: checks and acknowledges each; ends at the first failure.
        on("recv",
           [this](std::uint64_t count, const Wait& wait) { return receive(count, 0, wait); });
        // The same until the message of this number.
        on("recv-to", [this](std::uint64_t number, const Wait& wait) {
            return receive(~std::uint64_t{0}, number, wait);
        });
        // The same until there are no more.
        on("drain", [this](const Wait& wait) { return receive(~std::uint64_t{0}, 0, wait); });
        // COUNT messages in one call, checked and acknowledged.
        on("take-whole", [this](std::size_t count, const Wait& wait) {
            std::vector<Delivery> batch;
            const Status status = queue().take_many(batch, count, wait, count);
            if (!status) return failure_of(status);
            Receipt receipt;
            for (Delivery& delivery : batch) {
                if (Answer wrong = receipt.note(delivery); !wrong.is_ok()) return wrong;
                delivery.ack();
            }
            return receipt.finish(ok());
        });
        // Copies one message out. The number of its deliveries is unknown.
        on("get", [this](const Wait& wait) {
            std::vector<std::byte> buffer(4096);
            const Result<std::size_t> size = queue().get(buffer, wait);
            if (!size) return failure_of(size.status());
            buffer.resize(*size);
            const std::uint64_t number = number_in(buffer);
            return intact(check_numbered(buffer, number)).with("copied", number);
        });
    }

    Answer put(std::uint64_t count, std::size_t size, const Wait& wait) {
        std::vector<std::byte> message(size);
        Status status;
        for (; status && count > 0; --count) {
            fill_numbered(message, next_number());
            status = queue().put(message, wait);
            if (status) ++accepted_;
        }
        return counted(status);
    }
    Answer put_many(std::uint64_t count, std::size_t size, const Wait& wait) {
        std::vector<std::vector<std::byte>> messages(count, std::vector<std::byte>(size));
        std::vector<std::span<const std::byte>> views;
        for (std::vector<std::byte>& message : messages) {
            fill_numbered(message, next_number() + views.size());
            views.emplace_back(message);
        }
        const Result<std::size_t> put = queue().put_many(views, wait);
        if (put) accepted_ += *put;
        return counted(put.status());
    }
    Status loan(std::size_t size, const Wait& wait) {
        Result<QueueLoan> loan = queue().loan(size, wait);
        if (!loan) return loan.status();
        fill_numbered(loan->bytes(), next_number());
        loan_.emplace(*std::move(loan));
        return {};
    }
    void nack() {
        held_.at(0).nack();
        held_.pop_front();
    }
    static Answer moved(const Result<std::uint64_t>& count) {
        return count ? ok().with("moved", *count) : failure_of(count.status());
    }

    // The received messages, in order: "number/deliveries/sequence,...".
    class Receipt {
    public:
        Answer note(const Delivery& delivery) {
            const std::uint64_t number = number_in(delivery.bytes());
            text_ += (text_.empty() ? "" : ",") + std::to_string(number) + "/" +
                     std::to_string(delivery.deliveries()) + "/" +
                     std::to_string(delivery.sequence());
            return intact(check_numbered(delivery.bytes(), number));
        }
        Answer finish(Answer answer) const { return answer.with("got", text_); }

    private:
        std::string text_;
    };
    Answer hold(const Wait& wait) {
        Result<Delivery> delivery = queue().take(wait);
        if (!delivery) return failure_of(delivery.status());
        Receipt receipt;
        if (Answer wrong = receipt.note(*delivery); !wrong.is_ok()) return wrong;
        held_.push_back(*std::move(delivery));
        return receipt.finish(ok());
    }
    Answer receive(std::uint64_t count, std::uint64_t last, const Wait& wait) {
        Receipt receipt;
        for (std::uint64_t received = 0; received < count; ++received) {
            Result<Delivery> delivery = queue().take(wait);
            if (!delivery) return receipt.finish(failure_of(delivery.status()));
            const std::uint64_t number = number_in(delivery->bytes());
            if (Answer wrong = receipt.note(*delivery); !wrong.is_ok()) return wrong;
            delivery->ack();
            if (number == last) break;
        }
        return receipt.finish(ok());
    }

    [[nodiscard]] std::uint64_t next_number() const { return number_ * kMaxOfOne + accepted_; }
    Answer counted(const Status& status) const {
        return (status ? ok() : failure_of(status)).with("accepted", accepted_);
    }
    Queue& queue() { return queue_.value(); }

    std::uint64_t number_;
    std::uint64_t accepted_ = 0;
    std::string blow_;
    std::optional<Queue> queue_;
    std::optional<QueueLoan> loan_;
    std::deque<Delivery> held_;
};

// queue-actor NUMBER
inline int play_queue_actor(const Words& arguments) {
    return QueueActor(std::stoull(arguments.at(0))).run();
}

}  // namespace penstock::trust
