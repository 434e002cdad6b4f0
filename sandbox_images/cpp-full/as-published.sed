# Takes back what the Python package changed in the AtCoder library's interface: a flow without a limit, and
# convolutions of integers by their modulus.
s/\<flow2(int s, int t)/flow(int s, int t)/
/^template<class mint>$/ {
    N
    s/^template<class mint>\(\nstd::vector<mint> convolution(\)/template <class mint, internal::is_modint_t<mint>* = nullptr>\1/
}
/^std::vector<long long> convolution_ll(/ i\
template <unsigned int mod = 998244353, class T, std::enable_if_t<internal::is_integral<T>::value>* = nullptr>\
std::vector<T> convolution(const std::vector<T>& a, const std::vector<T>& b) {\
    return convolution<static_modint<mod>, T>(a, b);\
}
