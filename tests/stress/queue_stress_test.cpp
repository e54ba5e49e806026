// Producers and consumers of one Queue, killed and stopped at random under load and replaced. Every
// message is numbered and checked; the printed seed repeats a run.
// usage: queue_stress_test [--full] [--seed N] [--kills N]
#include <deque>
#include <map>

#include "tests/stress/delivery_stress.hpp"

namespace penstock::trust {
namespace {

// A third in cells, a third in small blocks, a few in large ones. 8 bytes hold the number.
std::size_t pick_size(Dice& dice) {
    const std::uint64_t kind = dice.between(0, 99);
    if (kind < 50) return dice.between(8, 64);
    if (kind < 95) return dice.between(65, 4096);
    return dice.between(4097, std::uint64_t{1} << 20U);
}

class Producer : DeliveryWorker, public StressWorker<Producer> {
public:
    explicit Producer(const Words& words)
        : DeliveryWorker(words),
          queue_(Queue::attach(name, QueueRole::Producer, Milliseconds(10'000))) {}

    void turn() {
        const std::uint64_t number = ledger.begin_put(rank);
        const Status status = put(number, pick_size(dice));
        if (!status) break_promise(text_of("put: ", status.message()));
        ledger.accepted(number);
    }
    void close() { queue_.close(); }

private:
    // A quarter through a loan, written in place; the rest copied.
    Status put(std::uint64_t number, std::size_t size) {
        const Wait wait = Milliseconds(15'000);
        if (dice.between(0, 3) == 0) {
            Result<QueueLoan> loan = queue_.loan(size, wait);
            if (!loan) return loan.status();
            fill_numbered(loan->bytes(), number);
            return loan->commit(Format::Bytes, wait);
        }
        buffer_.resize(size);
        fill_numbered(buffer_, number);
        return queue_.put(buffer_, wait);
    }

    Queue queue_;
    std::vector<std::byte> buffer_;
};

// Takes; holds some, nacks some, acknowledges the rest in any order.
class Consumer : DeliveryWorker, public StressWorker<Consumer> {
public:
    explicit Consumer(const Words& words)
        : DeliveryWorker(words),
          queue_(Queue::attach(name, QueueRole::Consumer, Milliseconds(10'000))) {}

    void turn() {
        constexpr Milliseconds kIdle{20};  // then all held messages are released
        Result<Delivery> delivery = queue_.take(kIdle);
        if (!delivery) {
            if (delivery.code() != ErrorCode::Timeout) {
                break_promise(text_of("take: ", delivery.status().message()));
            }
            while (!held_.empty()) let_go_of_one();
            return;
        }
        examine(*delivery);
        held_.push_back(*std::move(delivery));
        while (held_.size() > dice.between(0, 6)) let_go_of_one();
    }
    void close() {
        held_.clear();
        queue_.close();
    }

private:
    void examine(const Delivery& delivery) {
        const std::uint64_t number = number_of(delivery.bytes());
        ledger.taken(number, delivery.is_redelivered());
        promise_whole(delivery.bytes(), number);
        if (delivery.is_redelivered()) return;
        const auto [last, is_first] = last_.try_emplace(DeliveryLedger::rank_of(number), number);
        if (!is_first && last->second >= number) {
            break_promise(text_of("message ", number, " came after ", last->second));
        }
        last->second = number;
    }
    void let_go_of_one() {
        const auto at =
            held_.begin() + static_cast<std::ptrdiff_t>(dice.between(0, held_.size() - 1));
        Delivery delivery = std::move(*at);
        held_.erase(at);
        const std::uint64_t number = number_of(delivery.bytes());
        promise_whole(delivery.bytes(), number);  // it was not overwritten
        if (dice.between(0, 19) == 0) return delivery.nack();
        ledger.begin_ack(number);
        delivery.ack();
        ledger.acked(number);
    }

    Queue queue_;
    std::deque<Delivery> held_;
    std::map<std::uint64_t, std::uint64_t> last_;  // of each rank: first deliveries
};

void stress_queue(StressRun& run) {
    const std::string name = run.premises.name();
    Queue queue = Queue::create(name, {.capacity = std::uint64_t{24} << 20U,
                                       .slots = 64,
                                       .inline_bytes = 256,
                                       .participants = 16,
                                       .ends_with = EndsWith::LastProducer});
    const auto check_closed = [&] {
        require(queue.stats().closed, "the last producer has closed, and the stream goes on");
        queue.close();
    };
    stress_deliveries(run, {.name = name,
                            .producers = 3,
                            .consumers = 3,
                            .kills = run.kills(),
                            .between_kills = 150,
                            .while_stopped = 300,
                            .stats = [&] { return queue.stats(); },
                            .check_stopped = [] {},
                            .check_closed = check_closed});
}

}  // namespace
}  // namespace penstock::trust

int main(int argc, char** argv) {
    using namespace penstock::trust;
    constexpr Role kRoles[] = {{kProducerRole, play_worker<Producer>},
                               {kConsumerRole, play_worker<Consumer>}};
    return run_stress(argc, argv, "queue-stress", kRoles, stress_queue);
}
