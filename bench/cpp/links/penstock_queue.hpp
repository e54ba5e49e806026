// Penstock's Queue as a link: one from the driver to the reader, and one back.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>
#include <string>

#include "bench/cpp/common/failure.hpp"
#include "bench/cpp/links/link.hpp"
#include "penstock/queue.hpp"

namespace penstock::bench {

// For one reader. Small messages are copied out, large ones taken and read in place.
class PenstockQueueLink {
public:
    static constexpr const char* kName = "penstock queue";
    static constexpr bool kCarriesMessages = true;
    static constexpr std::size_t kRingBytes = std::size_t{4} << 20U;

    explicit PenstockQueueLink(const Place& place)
        : size_(place.message_size), forward_name_(place.name + ".queue"),
          backward_name_(place.name + ".queue.back") {}

    void open_driver() {
        forward_ = Queue::create(forward_name_, options());
        backward_ = Queue::create(backward_name_, options());
    }
    void open_reader(unsigned /*rank*/) {
        forward_ = Queue::attach(forward_name_, QueueRole::Consumer, kPatience);
        backward_ = Queue::attach(backward_name_, QueueRole::Producer, kPatience);
    }

    void send(Bytes message) { require(forward_->put(message)); }
    void answer(Bytes message) { require(backward_->put(message)); }
    template <typename Use>
    void receive(Use&& use) {
        take(*forward_, use);
    }
    template <typename Use>
    void collect(Use&& use) {
        take(*backward_, use);
    }

    void close() {
        forward_.reset();
        backward_.reset();
    }

private:
    static constexpr std::chrono::nanoseconds kPatience = std::chrono::seconds(20);
    static constexpr std::size_t kSmall = 4096;

    [[nodiscard]] QueueOptions options() const {
        QueueOptions options;
        options.capacity = std::max<std::uint64_t>(options.capacity, 4 * size_);
        options.inline_bytes = 64;
        return options;
    }

    template <typename Use>
    void take(Queue& queue, Use&& use) {
        if (size_ <= kSmall) {
            const Result<std::size_t> size = queue.get(buffer_);
            require(size.status());
            use(Bytes(buffer_).first(*size));
            return;
        }
        Result<Delivery> delivery = queue.take();
        require(delivery.status());
        use(delivery->bytes());
        delivery->ack();
    }

    std::size_t size_;
    std::string forward_name_;
    std::string backward_name_;
    alignas(64) std::array<std::byte, kSmall> buffer_{};
    std::optional<Queue> forward_;
    std::optional<Queue> backward_;
};

}  // namespace penstock::bench
