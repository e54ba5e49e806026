// ZeroMQ over ipc://: one PAIR socket for each reader, which loses nothing (PUB would drop where
// the others wait). Abstract socket addresses leave no files.
#pragma once

#ifdef PENSTOCK_HAVE_ZMQ

#include <zmq.h>

#include <vector>

#include "bench/cpp/common/failure.hpp"
#include "bench/cpp/links/link.hpp"

namespace penstock::bench {

class ZmqLink {
public:
    static constexpr const char* kName = "zeromq ipc";
    static constexpr bool kCarriesMessages = true;
    static constexpr std::size_t kRingBytes = 0;

    explicit ZmqLink(const Place& place) : place_(place) {}
    ZmqLink(const ZmqLink&) = delete;
    ZmqLink& operator=(const ZmqLink&) = delete;
    ~ZmqLink() { close(); }

    void open_driver() {
        context_ = zmq_ctx_new();
        for (unsigned rank = 0; rank < place_.readers; ++rank) {
            require(zmq_bind(add_socket(), address(rank).c_str()) == 0, "zmq_bind failed");
        }
    }
    void open_reader(unsigned rank) {
        context_ = zmq_ctx_new();
        require(zmq_connect(add_socket(), address(rank).c_str()) == 0, "zmq_connect failed");
    }
    void close() {
        for (void* socket : sockets_) {
            zmq_close(socket);
        }
        sockets_.clear();
        if (context_ != nullptr) {
            zmq_ctx_term(context_);
            context_ = nullptr;
        }
    }

    void send(Bytes message) {
        for (void* socket : sockets_) {
            require(zmq_send(socket, message.data(), message.size(), 0) >= 0, "zmq_send failed");
        }
    }
    void answer(Bytes message) { send(message); }
    template <typename Use>
    void receive(Use&& use) {
        for (void* socket : sockets_) {
            zmq_msg_t message;
            zmq_msg_init(&message);
            require(zmq_msg_recv(&message, socket, 0) >= 0, "zmq_msg_recv failed");
            use(Bytes(static_cast<const std::byte*>(zmq_msg_data(&message)),
                      zmq_msg_size(&message)));
            zmq_msg_close(&message);
        }
    }
    template <typename Use>
    void collect(Use&& use) {
        receive(use);
    }

private:
    void* add_socket() {
        void* socket = zmq_socket(context_, ZMQ_PAIR);
        require(socket != nullptr, "zmq_socket failed");
        const int length = static_cast<int>(queue_length(place_.message_size));
        const int linger = 0;
        zmq_setsockopt(socket, ZMQ_SNDHWM, &length, sizeof(length));
        zmq_setsockopt(socket, ZMQ_RCVHWM, &length, sizeof(length));
        zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof(linger));
        sockets_.push_back(socket);
        return socket;
    }
    [[nodiscard]] std::string address(unsigned rank) const {
        return "ipc://@" + place_.name + '.' + std::to_string(rank);
    }

    Place place_;
    void* context_ = nullptr;
    std::vector<void*> sockets_;  // the driver has one for each reader, a reader has its own
};

}  // namespace penstock::bench

#endif  // PENSTOCK_HAVE_ZMQ
