// Threads that work on one row together: a few lanes of a warp, or a whole block.
//
// Requires: scalar.cuh, memory.cuh. A team has a rank, a size, and all-reduce: every member gets the same bits,
// because each step combines two values with an operation that does not depend on their order.

constexpr unsigned FULL_WARP = 0xffffffffu;

struct Sum {
    template <class V> __device__ __forceinline__ V operator()(V a, V b) const { return a + b; }
};

struct Maximum {
    template <class V> __device__ __forceinline__ V operator()(V a, V b) const { return max_(a, b); }
};

// A row's largest element so far. An index below 0 says that a NaN was seen, which nothing beats.
struct Largest {
    T value;
    long long index;
};

// Of two equal values the one further left wins, as in argmax.
struct FirstLargest {
    __device__ __forceinline__ Largest operator()(Largest a, Largest b) const {
        if (a.index < 0 || b.index < 0) return {T(0), -1};
        return a.value > b.value || (a.value == b.value && a.index < b.index) ? a : b;
    }
};

template <class V> DEVICE V shuffle_xor(V value, int mask) { return __shfl_xor_sync(FULL_WARP, value, mask); }
DEVICE Largest shuffle_xor(Largest a, int mask) {
    return {__shfl_xor_sync(FULL_WARP, a.value, mask), __shfl_xor_sync(FULL_WARP, a.index, mask)};
}

// Combine the values of `width` neighbouring lanes (a power of two, at most 32). All 32 lanes must call.
template <class V, class Op> DEVICE V reduce_lanes(V value, int width, Op op) {
    for (int mask = width / 2; mask > 0; mask /= 2) value = op(value, shuffle_xor(value, mask));
    return value;
}

// `size` neighbouring lanes of one warp.
struct LaneTeam {
    int rank;
    int size;
    template <class V, class Op> __device__ __forceinline__ V reduce(V value, V, Op op) const {
        return reduce_lanes(value, size, op);
    }
};

// All threads of a block of one axis, whose size is a multiple of 32.
struct BlockTeam {
    int rank;
    int size;
    template <class V, class Op> __device__ __forceinline__ V reduce(V value, V neutral, Op op) const {
        SHARED_ARRAY(V, of_warp, 32);  // (number of warps,) result of each warp
        const int lane = rank % 32;
        value = reduce_lanes(value, 32, op);
        if (lane == 0) of_warp[rank / 32] = value;
        __syncthreads();
        value = reduce_lanes(lane < size / 32 ? of_warp[lane] : neutral, 32, op);
        __syncthreads();  // the next reduction writes of_warp again
        return value;
    }
};
