// Samples of one measurement, turn by turn: a median for each turn, to be compared with another
// contender's in the same moment, and the tail of all turns together.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "bench/cpp/common/clock.hpp"

namespace penstock::bench {

class Samples {
public:
    void reserve(std::size_t count) { all_.reserve(count); }

    void add(Ticks value) { all_.push_back(value); }

    // Ends a turn: samples added since the last one get their own median.
    void end_turn() {
        std::vector<Ticks> turn(all_.begin() + static_cast<std::ptrdiff_t>(turn_begin_),
                                all_.end());
        turn_begin_ = all_.size();
        std::sort(turn.begin(), turn.end());
        turn_medians_.push_back(median(turn));
    }

    struct Summary {
        std::size_t count = 0;
        double p50 = 0, p99 = 0, p999 = 0, p9999 = 0, max = 0;  // ticks
    };
    [[nodiscard]] Summary summary() const {
        std::vector<Ticks> sorted = all_;
        std::sort(sorted.begin(), sorted.end());
        return {sorted.size(),           median(sorted),           quantile(sorted, 0.99),
                quantile(sorted, 0.999), quantile(sorted, 0.9999), quantile(sorted, 1.0)};
    }
    [[nodiscard]] const std::vector<double>& turn_medians() const noexcept { return turn_medians_; }

private:
    // Some counters step by 10 ns, a sixth of the shortest times measured here: the median is
    // interpolated inside its step by the number of equal samples on either side.
    static double median(const std::vector<Ticks>& sorted) {
        const double middle = quantile(sorted, 0.5);
        const auto [first, last] =
            std::equal_range(sorted.begin(), sorted.end(), static_cast<Ticks>(middle));
        if (first == sorted.begin() || first == last) {
            return middle;
        }
        const double step = middle - static_cast<double>(*(first - 1));
        const double below = static_cast<double>(first - sorted.begin());
        const double equal = static_cast<double>(last - first);
        const double half = static_cast<double>(sorted.size()) / 2;
        return middle + step * ((half - below) / equal - 0.5);
    }
    static double quantile(const std::vector<Ticks>& sorted, double q) {
        if (sorted.empty()) {
            return 0;
        }
        const auto at = static_cast<std::size_t>(q * static_cast<double>(sorted.size()));
        return static_cast<double>(sorted[std::min(at, sorted.size() - 1)]);
    }

    std::vector<Ticks> all_;
    std::size_t turn_begin_ = 0;
    std::vector<double> turn_medians_;
};

}  // namespace penstock::bench
