package sdk

import (
	"strconv"

	"github.com/convhost/convhost/abi"
)

// Size reads an option that is a number of bytes: decimal, 0x hexadecimal, or with one of the suffixes K, M, G (1024).
func Size(options map[string]string, name string, def int64) (int64, error) {
	v, ok := options[name]
	if !ok || v == "" {
		return def, nil
	}
	digits, unit := v, int64(1)
	switch v[len(v)-1] {
	case 'k', 'K':
		unit = 1 << 10
	case 'm', 'M':
		unit = 1 << 20
	case 'g', 'G':
		unit = 1 << 30
	}
	if unit > 1 {
		digits = v[:len(v)-1]
	}
	n, err := strconv.ParseInt(digits, 0, 64)
	if err != nil || n < 0 || n > (1<<62)/unit {
		return 0, abi.Errorf(abi.ErrInvalid, "option %s=%s: want a number of bytes, such as 1048576, 0x100000 or 1M", name, v)
	}
	return n * unit, nil
}

// Choice reads an option with a fixed set of values.
func Choice[T any](options map[string]string, name, def string, values map[string]T) (T, error) {
	v := options[name]
	if v == "" {
		v = def
	}
	t, ok := values[v]
	if !ok {
		return t, abi.Errorf(abi.ErrInvalid, "option %s=%s is not one of its values", name, v)
	}
	return t, nil
}

// Int reads an option that is a decimal number from min to max.
func Int(options map[string]string, name string, def, min, max int) (int, error) {
	v, ok := options[name]
	if !ok || v == "" {
		return def, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < min || n > max {
		return 0, abi.Errorf(abi.ErrInvalid, "option %s=%s: want a number from %d to %d", name, v, min, max)
	}
	return n, nil
}
