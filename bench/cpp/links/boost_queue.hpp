// Boost.Interprocess message_queue: one for each reader and direction, a copy in and a copy out.
#pragma once

#ifdef PENSTOCK_HAVE_BOOST

#include <boost/interprocess/ipc/message_queue.hpp>
#include <memory>
#include <vector>

#include "bench/cpp/common/failure.hpp"
#include "bench/cpp/links/link.hpp"

namespace penstock::bench {

class BoostQueueLink {
public:
    static constexpr const char* kName = "boost message_queue";
    static constexpr bool kCarriesMessages = true;
    static constexpr std::size_t kRingBytes = 0;

    explicit BoostQueueLink(const Place& place) : place_(place), buffer_(place.message_size) {
        for (unsigned rank = 0; rank < place.readers; ++rank) {
            forward_.push_back(make(rank, "forward"));
            backward_.push_back(make(rank, "backward"));
        }
    }

    // The forked readers inherit the queues' mappings and need no names.
    void open_driver() {}
    void open_reader(unsigned rank) { rank_ = rank; }
    void close() {}

    void send(Bytes message) {
        for (auto& queue : forward_) {
            queue->send(message.data(), message.size(), 0);
        }
    }
    void answer(Bytes message) { backward_[rank_]->send(message.data(), message.size(), 0); }
    template <typename Use>
    void receive(Use&& use) {
        use(take(*forward_[rank_]));
    }
    template <typename Use>
    void collect(Use&& use) {
        for (auto& queue : backward_) {
            use(take(*queue));
        }
    }

private:
    using Queue = boost::interprocess::message_queue;

    std::unique_ptr<Queue> make(unsigned rank, const char* direction) const {
        const std::string name = place_.name + '.' + direction + std::to_string(rank);
        auto queue =
            std::make_unique<Queue>(boost::interprocess::create_only, name.c_str(),
                                    queue_length(place_.message_size), place_.message_size);
        Queue::remove(name.c_str());
        return queue;
    }
    Bytes take(Queue& queue) {
        Queue::size_type size = 0;
        unsigned priority = 0;
        queue.receive(buffer_.data(), buffer_.size(), size, priority);
        return {buffer_.data(), size};
    }

    Place place_;
    unsigned rank_ = 0;
    std::vector<std::unique_ptr<Queue>> forward_;
    std::vector<std::unique_ptr<Queue>> backward_;
    std::vector<std::byte> buffer_;
};

}  // namespace penstock::bench

#endif  // PENSTOCK_HAVE_BOOST
