// A live Broadcast whose control block, ring and slots are overwritten while both sides work:
// sends, loans, receives, inspections, departures. Errors are allowed, and no other harm.
#include <optional>

#include "fuzz/calls.hpp"
#include "fuzz/playground.hpp"
#include "fuzz/strike.hpp"
#include "penstock/broadcast.hpp"

namespace penstock::fuzzing {
namespace {

// Both sides in one process, with the order of calls from the input.
class Town {
public:
    explicit Town(FuzzedDataProvider& input)
        : input_(input), path_(path_of("ring")), name_("file:" + path_),
          writer_(BroadcastWriter::create(
              name_, {.readers = 2,
                      .capacity = 4096,
                      .large = 262144,
                      .on_reader_death =
                          input.ConsumeBool() ? OnReaderDeath::Raise : OnReaderDeath::Drop})),
          corruptor_(name_) {}
    Town(const Town&) = delete;
    Town& operator=(const Town&) = delete;
    ~Town() { ::unlink(path_.c_str()); }  // with a damaged slot the name may be left

    void live() {
        for (int i = 0; i < 60 && input_.remaining_bytes() > 0; ++i) step();
    }

private:
    void step() {
        std::optional<BroadcastReader>& reader = readers_[input_.ConsumeBool() ? 1 : 0];
        const unsigned rank = &reader == &readers_[1] ? 1 : 0;
        switch (input_.ConsumeIntegralInRange<int>(0, 13)) {
            case 0:
            case 1:
            case 2:
                strike(corruptor_, input_);
                break;
            case 3:
                send(input_.ConsumeIntegralInRange<std::size_t>(0, 1200));
                break;
            case 4:
                send(input_.ConsumeIntegralInRange<std::size_t>(0, 300'000));
                break;
            case 5:
                loan();
                break;
            case 6:
                if (!reader) {
                    may_refuse([&] { reader.emplace(BroadcastReader::attach(name_, rank)); });
                }
                break;
            case 7:
            case 8:
                if (reader) receive(*reader);
                break;
            case 9:
                if (!held_.empty()) held_.erase(held_.begin());
                break;
            case 10:
                reader.reset();
                break;
            case 11:
                look();
                break;
            case 12:
                may_refuse([&] {
                    static_cast<void>(
                        BroadcastWriter::create(name_, {.capacity = 4096, .large = 0}));
                });
                break;
            default:
                static_cast<void>(writer_.wait_ready(Deadline::now()).is_ok());
                break;
        }
    }
    void send(std::size_t size) {
        static const std::vector<std::byte> bytes(300'000);
        static_cast<void>(writer_.send(std::span(bytes).first(size), Deadline::now()).is_ok());
    }
    void loan() {
        const auto size = input_.ConsumeIntegralInRange<std::size_t>(0, 100'000);
        Result<BroadcastLoan> loan = writer_.loan(size, Deadline::now());
        if (!loan) return;
        std::memset(loan->bytes().data(), 1, loan->bytes().size());
        if (input_.ConsumeBool()) strike(corruptor_, input_);
        if (input_.ConsumeBool()) static_cast<void>(loan->commit().is_ok());
    }
    void receive(BroadcastReader& reader) {
        if (input_.ConsumeBool()) {
            std::byte small[600];
            static_cast<void>(reader.next_size(Deadline::now()).is_ok());
            static_cast<void>(reader.recv_into(small, Deadline::now()).is_ok());
            return;
        }
        Result<BroadcastMessage> message = reader.recv(Deadline::now());
        if (!message) return;
        touch(message->bytes());
        if (input_.ConsumeBool()) message->keep();
        if (input_.ConsumeBool()) held_.push_back(std::move(*message));
    }
    void look() {
        may_refuse([&] { static_cast<void>(inspect_broadcast(name_)); });
        // A handle whose slot was reused reports that instead of figures.
        may_refuse([&] { static_cast<void>(writer_.stats()); });
        may_refuse([&] { static_cast<void>(writer_.readers()); });
        may_refuse([&] { static_cast<void>(writer_.blocked_by()); });
        for (const auto& reader : readers_) {
            may_refuse([&] {
                if (reader) static_cast<void>(reader->stats());
            });
        }
        for (const BroadcastMessage& message : held_) touch(message.bytes());
    }

    FuzzedDataProvider& input_;
    std::string path_;
    std::string name_;
    BroadcastWriter writer_;
    SegmentCorruptor corruptor_;
    std::optional<BroadcastReader> readers_[2];
    std::vector<BroadcastMessage> held_;
};

}  // namespace
}  // namespace penstock::fuzzing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    FuzzedDataProvider input(data, size);
    penstock::fuzzing::Town(input).live();
    return 0;
}
