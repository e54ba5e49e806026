// A live Queue whose control block, slots and cells are overwritten while two participants work:
// puts, loans, deliveries held and nacked, inspections, departures. Errors are allowed, and no
// other harm.
#include <array>
#include <optional>

#include "fuzz/calls.hpp"
#include "fuzz/playground.hpp"
#include "fuzz/strike.hpp"
#include "queue/core.hpp"

namespace penstock::fuzzing {
namespace {

// A queue and its corruptor, made once: making them takes longer than all calls of a run.
struct Ground {
    explicit Ground(unsigned max_deliveries)
        : path(path_of("queue" + std::to_string(max_deliveries))), name("file:" + path),
          queue(Queue::create(name, {.capacity = 262144,
                                     .slots = 4,
                                     .inline_bytes = 64,
                                     .participants = 4,
                                     .max_deliveries = max_deliveries})),
          corruptor(name) {}

    // Resets a handle's memory of earlier calls.
    void forget() const {
        detail::QueueCore& core = *detail::QueueAccess::core(queue);
        core.tail = 0;
        core.head = 0;
        core.next_granule = 0;
        core.is_producer = false;
        core.last_empty = 0;
        core.streaming_pause = 0;
        core.last_freed = 0;
        core.looked_at = 0;
        core.put_spin = detail::SpinBudget();
        core.take_spin = detail::SpinBudget();
    }

    std::string path;
    std::string name;
    Queue queue;
    SegmentCorruptor corruptor;
};

// The queue as it was made.
Ground& fresh_ground(bool has_dead_letter) {
    static auto* const grounds = new std::array{Ground(0), Ground(2)};
    Ground& ground = (*grounds)[has_dead_letter ? 1 : 0];
    ground.corruptor.undo();
    ground.forget();
    return ground;
}

// Two participants in one process, with the order of calls from the input.
class Town {
public:
    explicit Town(FuzzedDataProvider& input)
        : input_(input), ground_(fresh_ground(input.ConsumeBool())), queue_(ground_.queue),
          corruptor_(ground_.corruptor) {}

    void live() {
        for (int i = 0; i < 60 && input_.remaining_bytes() > 0 && !is_lost_; ++i) step();
    }

private:
    void step() {
        Queue& who = other_ && input_.ConsumeBool() ? *other_ : queue_;
        switch (input_.ConsumeIntegralInRange<int>(0, 12)) {
            case 0:
            case 1:
                strike(corruptor_, input_);
                break;
            case 2:
            case 3:
                put(who, input_.ConsumeIntegralInRange<std::size_t>(0, 100));
                break;
            case 4:
                put(who, input_.ConsumeIntegralInRange<std::size_t>(0, 300'000));
                break;
            case 5:
                loan(who);
                break;
            case 6:
            case 7:
                take(who);
                break;
            case 8:
                get(who);
                break;
            case 9:
                if (!held_.empty()) held_.erase(held_.begin());
                break;
            case 10:
                look(who);
                break;
            case 11:
                move_dead_letters(who);
                break;
            default:
                // A hundred times as expensive as other calls, and covered by attach_fuzz.
                if (input_.ConsumeIntegralInRange<int>(0, 7) == 0) come_or_look_in();
                break;
        }
    }
    // Each further call on contradictory slots takes millions of looks before it is refused, and
    // shows nothing new: the remaining calls are made once.
    void judge(const Status& status) { is_lost_ = is_lost_ || status.code() == ErrorCode::Corrupt; }
    void put(Queue& queue, std::size_t size) {
        static const std::vector<std::byte> bytes(300'000);
        judge(queue.put(std::span(bytes).first(size), Deadline::now()));
    }
    void loan(Queue& queue) {
        const auto size = input_.ConsumeIntegralInRange<std::size_t>(0, 100'000);
        Result<QueueLoan> loan = queue.loan(size, Deadline::now());
        if (!loan) return;
        std::memset(loan->bytes().data(), 1, loan->bytes().size());
        if (input_.ConsumeBool()) strike(corruptor_, input_);
        if (input_.ConsumeBool()) {
            judge(loan->commit(Format::Bytes, Deadline::now()));
        }
    }
    void take(Queue& queue) {
        Result<Delivery> delivery = queue.take(Deadline::now());
        if (!delivery) return judge(delivery.status());
        touch(delivery->bytes());
        switch (input_.ConsumeIntegralInRange<int>(0, 5)) {
            case 0:
                delivery->ack();
                break;
            case 5:
                delivery->dead_letter();
                break;
            case 1:
                delivery->untake();
                break;
            case 2:
                delivery->settle();
                [[fallthrough]];
            default:
                held_.push_back(std::move(*delivery));
                break;
        }
    }
    void move_dead_letters(Queue& queue) {
        const auto letters = queue.dead_letters();
        if (!letters) return judge(letters.status());
        std::vector<std::uint64_t> sequences;
        for (const DeadLetter& letter : *letters) {
            sequences.push_back(letter.sequence);
            if (const auto copy = queue.copy_dead_letter(letter.sequence)) touch(*copy);
        }
        const bool is_all = input_.ConsumeBool();
        if (input_.ConsumeBool()) {
            judge(queue.drop_dead_letters(sequences).status());
            if (is_all) judge(queue.drop_dead_letters().status());
        } else {
            judge(queue.requeue_dead_letters(sequences).status());
            if (is_all) judge(queue.requeue_dead_letters().status());
        }
    }
    void get(Queue& queue) {
        std::byte small[600];
        const Result<std::size_t> got = queue.get(small, Deadline::now());
        if (!got) judge(got.status());
    }
    void come_or_look_in() {
        if (input_.ConsumeBool()) {
            may_refuse([&] { static_cast<void>(inspect_queue(ground_.name)); });
        } else if (other_) {
            other_.reset();
        } else {
            may_refuse([&] { other_.emplace(Queue::attach(ground_.name)); });
        }
    }
    void look(Queue& queue) {
        may_refuse([&] { static_cast<void>(queue.stats()); });
        static_cast<void>(queue.is_ready());
        static_cast<void>(queue.has_room());
        for (const Delivery& delivery : held_) touch(delivery.bytes());
    }

    FuzzedDataProvider& input_;
    Ground& ground_;
    Queue& queue_;
    SegmentCorruptor& corruptor_;
    std::optional<Queue> other_;
    std::vector<Delivery> held_;
    bool is_lost_ = false;
};

}  // namespace
}  // namespace penstock::fuzzing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    FuzzedDataProvider input(data, size);
    penstock::fuzzing::Town(input).live();
    return 0;
}
