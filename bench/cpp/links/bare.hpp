// The bare limits: the best that two processes can reach over a shared line, and over a shared
// buffer. Both lack queues, death detection, sleep and further readers: they spin, and hold one
// message.
#pragma once

#include <atomic>
#include <cstring>

#include "bench/cpp/common/shared.hpp"
#include "bench/cpp/links/link.hpp"

namespace penstock::bench {

// A word on its own line, which one side counts up and the other waits for.
class Flag {
public:
    void raise() noexcept {
        ++raised_;
        shared_->store(raised_, std::memory_order_release);
    }
    void await() noexcept {
        ++awaited_;
        while (shared_->load(std::memory_order_acquire) != awaited_) {
        }
    }

private:
    struct alignas(kLine) Line {
        std::atomic<std::uint64_t> word = 0;
        void store(std::uint64_t value, std::memory_order order) { word.store(value, order); }
        [[nodiscard]] std::uint64_t load(std::memory_order order) const { return word.load(order); }
    };
    Shared<Line> shared_;
    std::uint64_t raised_ = 0;
    std::uint64_t awaited_ = 0;
};

// Cache-line ping-pong with the first reader: eight bytes, whatever the message size. Only the turn
// is checked.
class PingPongLink {
public:
    static constexpr const char* kName = "bare ping-pong";
    static constexpr bool kCarriesMessages = false;
    static constexpr std::size_t kRingBytes = 0;

    explicit PingPongLink(const Place& /*place*/) {}
    void open_driver() {}
    void open_reader(unsigned rank) { takes_part_ = rank == 0; }
    void close() {}

    void send(Bytes /*message*/) { forward_.raise(); }
    void answer(Bytes /*message*/) { backward_.raise(); }
    template <typename Use>
    void receive(Use&& use) {
        if (takes_part_) {
            forward_.await();
            use(Bytes());
        }
    }
    template <typename Use>
    void collect(Use&& use) {
        backward_.await();
        use(Bytes());
    }

private:
    Flag forward_;
    Flag backward_;
    bool takes_part_ = true;
};

// A copy into a shared buffer, a flag, and a reader that reads and checks every byte in place.
class SharedBufferLink {
public:
    static constexpr const char* kName = "bare shared buffer";
    static constexpr bool kCarriesMessages = true;
    static constexpr std::size_t kRingBytes = 0;

    explicit SharedBufferLink(const Place& place)
        : size_(place.message_size), forward_(size_), backward_(size_) {}
    void open_driver() {}
    void open_reader(unsigned /*rank*/) {}
    void close() {}

    void send(Bytes message) { forward_.put(message); }
    void answer(Bytes message) { backward_.put(message); }
    template <typename Use>
    void receive(Use&& use) {
        use(forward_.get());
    }
    template <typename Use>
    void collect(Use&& use) {
        use(backward_.get());
    }

private:
    class Buffer {
    public:
        explicit Buffer(std::size_t size) : size_(size), bytes_(size) {}
        void put(Bytes message) {
            std::memcpy(bytes_.data(), message.data(), message.size());
            flag_.raise();
        }
        Bytes get() {
            flag_.await();
            return {bytes_.data(), size_};
        }

    private:
        std::size_t size_;
        SharedBytes bytes_;
        Flag flag_;
    };

    std::size_t size_;
    Buffer forward_;
    Buffer backward_;
};

}  // namespace penstock::bench
