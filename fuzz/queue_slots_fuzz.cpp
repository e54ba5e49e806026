// A living Queue whose control block, slots and cells are overwritten by somebody while two
// participants work on: puts, loans, deliveries held and given back, looks, departures. Errors may
// come of it, and nothing else.
#include <optional>

#include "fuzz/segment_image.hpp"
#include "fuzz/vandal.hpp"
#include "penstock/queue.hpp"

namespace penstock::fuzzing {
namespace {

// Two participants in one process, each doing one thing after another as the input says.
class Town {
public:
    explicit Town(FuzzedDataProvider& input)
        : input_(input), path_(path_of("queue")), name_("file:" + path_),
          queue_(Queue::create(name_, {.capacity = 262144,
                                       .slots = 4,
                                       .inline_bytes = 64,
                                       .members = 4,
                                       .poison_limit = input.ConsumeBool() ? 2U : 0U})),
          vandal_(path_) {}
    Town(const Town&) = delete;
    Town& operator=(const Town&) = delete;
    ~Town() { ::unlink(path_.c_str()); }  // a damaged slot may have kept the last from removing it

    void live() {
        for (int i = 0; i < 60 && input_.remaining_bytes() > 0; ++i) step();
    }

private:
    void step() {
        Queue& who = other_ && input_.ConsumeBool() ? *other_ : queue_;
        switch (input_.ConsumeIntegralInRange<int>(0, 11)) {
            case 0:
            case 1:
                vandal_.strike(input_);
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
                come_or_go();
                break;
            default:
                look(who);
                break;
        }
    }
    static void put(Queue& queue, std::size_t size) {
        static const std::vector<std::byte> bytes(300'000);
        static_cast<void>(queue.put(std::span(bytes).first(size), Deadline::now()).is_ok());
    }
    void loan(Queue& queue) {
        const auto size = input_.ConsumeIntegralInRange<std::size_t>(0, 100'000);
        Result<QueueLoan> loan = queue.loan(size, Deadline::now());
        if (!loan) return;
        std::memset(loan->bytes().data(), 1, loan->bytes().size());
        if (input_.ConsumeBool()) vandal_.strike(input_);
        if (input_.ConsumeBool()) {
            static_cast<void>(loan->commit(Format::Bytes, Deadline::now()).is_ok());
        }
    }
    void take(Queue& queue) {
        Result<Delivery> delivery = queue.take(Deadline::now());
        if (!delivery) return;
        touch(delivery->bytes());
        switch (input_.ConsumeIntegralInRange<int>(0, 4)) {
            case 0:
                delivery->ack();
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
    static void get(Queue& queue) {
        std::byte small[600];
        static_cast<void>(queue.get(small, Deadline::now()).is_ok());
    }
    void come_or_go() {
        if (other_) {
            other_.reset();
        } else {
            may_refuse([&] { other_.emplace(Queue::attach(name_)); });
        }
    }
    void look(Queue& queue) {
        may_refuse([&] { static_cast<void>(inspect_queue(name_)); });
        static_cast<void>(queue.stats());
        static_cast<void>(queue.is_ready());
        static_cast<void>(queue.has_room());
        for (const Delivery& delivery : held_) touch(delivery.bytes());
    }

    FuzzedDataProvider& input_;
    std::string path_;
    std::string name_;
    Queue queue_;
    Vandal vandal_;
    std::optional<Queue> other_;
    std::vector<Delivery> held_;
};

}  // namespace
}  // namespace penstock::fuzzing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    FuzzedDataProvider input(data, size);
    penstock::fuzzing::Town(input).live();
    return 0;
}
